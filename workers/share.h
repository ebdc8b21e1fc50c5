/* Who may be given commands: in a turn of the loop, and while so many are unanswered (window.h). What is urgent has
 * room of its own behind what is not, and so have tenants that were given little lately (lately.h): they need not wait
 * until what a large one has sent is answered, nor for the next turn because it has had this one. Owns: the rule. May
 * call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_WORKERS_SHARE_H
#define MUSTER_WORKERS_SHARE_H

#include <stdbool.h>
#include <stdint.h>

/* Unanswered commands of the last moment with which each waits: so many are enough to keep a core busy. */
#define SHARE_URGENT 2048
#define SHARE_LITTLE 1536
#define SHARE_OTHERS 1024
/* Commands given in one turn, as many as streams send in one: more would wait there, unanswered and forgotten by the
 * window. */
#define SHARE_PER_TURN 64
/* And so many more of those with room of their own: streams let as many pass. */
#define SHARE_HURRIED_PER_TURN 48

enum share { SHARE_NOBODY, SHARE_LITTLE_ONLY, SHARE_ANYBODY };

/* Of those whose commands are urgent, or are not; `given`: in this turn so far. */
static inline enum share share_now(bool urgent, uint32_t unanswered, unsigned given)
{
    if (given >= SHARE_PER_TURN + SHARE_HURRIED_PER_TURN || unanswered >= (urgent ? SHARE_URGENT : SHARE_LITTLE))
        return SHARE_NOBODY;
    if (given >= SHARE_PER_TURN || (!urgent && unanswered >= SHARE_OTHERS))
        return SHARE_LITTLE_ONLY;
    return SHARE_ANYBODY;
}

/* How many commands at most it may be given now. */
static inline unsigned share_most(unsigned given)
{
    return given < SHARE_PER_TURN ? SHARE_PER_TURN - given : SHARE_PER_TURN + SHARE_HURRIED_PER_TURN - given;
}

#endif
