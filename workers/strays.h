/* Devices that are here while presence gives them to nobody. What their former worker had sent to Redis before they
 * left it may be carried out after they were attached here, when Redis was slow to read it; then that worker, or the
 * leader that reaps it, takes the device out of presence. Whoever does so tells all workers, and each looks at those
 * who came to it lately. Owns: struct strays. May call: lib/store/live, proto/inbox, attach, session_table. Loop rule:
 * non-blocking. What is told is a hint that may be lost. */
#ifndef MUSTER_WORKERS_STRAYS_H
#define MUSTER_WORKERS_STRAYS_H

#include <stdint.h>

struct strays;
struct worker;

/* Returns owned, or NULL without memory. */
struct strays *strays_new(struct worker *worker);
void strays_free(struct strays **strays);
/* Redis was told that the device is here, and has not answered. */
void strays_unsure(struct strays *strays, uint32_t tenant, uint32_t seq);
/* All changes so far are carried out. Whoever has gone meanwhile may be out of a presence that was another's; and of
 * who is here whoever had him before must know. */
void strays_settled(struct strays *strays);
/* Devices are about to be attached. */
void strays_mark(struct strays *strays);
/* Attaches those who came lately and whom nobody has. */
void strays_check(struct strays *strays);

#endif
