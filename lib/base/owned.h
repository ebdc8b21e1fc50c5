/* For gcc's analyzer. Owns: nothing. May call: nothing. Loop rule: none.
 *
 * gcc 12 takes memory for leaked when its owner is reached through a pointer that was itself read from memory, and
 * something is then written elsewhere (a list, an array at an unknown index, a structure behind a callback's argument):
 * it can't rule out that this overwrote the owner's pointer. Leaks are looked for in all other places; at run time
 * LeakSanitizer and valgrind look for all. */
#ifndef MUSTER_BASE_OWNED_H
#define MUSTER_BASE_OWNED_H

/* `p` has an owner, who frees it. Makes no code: only the analyzer, which links nothing, sees the function. */
#ifdef MUSTER_ANALYZED
void owned(void *p);
#else
static inline void owned(const void *p)
{
    (void)p;
}
#endif

#endif
