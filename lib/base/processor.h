/* How this process shares processors with others of its machine.
 * Owns: nothing. May call: the system. Loop rule: none, for start-up.
 *
 * Who wakes up goes at once before who is running if it asks for less at a time; else the other may end its slice first
 * (Linux 6.12 and later). So who has little to do in one go, for which many wait, asks for little, and who works
 * through a crowd for more. In the long run both get as much as before. */
#ifndef MUSTER_BASE_PROCESSOR_H
#define MUSTER_BASE_PROCESSOR_H

/* The calling thread and its children to come want so many microseconds at a time (the kernel's limits: 100 to
 * 100,000). Where the kernel knows no such wish, or the process runs under another policy than the usual one, nothing
 * changes. */
void processor_slice_us(unsigned us);

#endif
