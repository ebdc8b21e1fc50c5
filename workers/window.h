/* How many commands were sent a moment ago and are not answered yet: what devices answer at once is waited for before
 * the next ones are sent, while connections, keys and buffers are still warm; what takes longer holds nothing up. Owns:
 * struct window, embedded. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_WORKERS_WINDOW_H
#define MUSTER_WORKERS_WINDOW_H

#include <stdint.h>

/* A command counts for one to two of these, 16 to 33 ms: devices that take longer are sent to all the same, a window's
 * worth in each such time, 30,000 a second and more. */
#define WINDOW_SPAN_US_LOG2 14

struct window {
    uint64_t span;          /* the last one looked at, counted from the clock's zero */
    uint32_t unanswered[2]; /* of the even and the odd one of the last two spans */
};

static inline void window_turn(struct window *w, int64_t now_us)
{
    uint64_t span = (uint64_t)now_us >> WINDOW_SPAN_US_LOG2;
    if (span == w->span)
        return;
    w->unanswered[span & 1] = 0;
    if (span > w->span + 1)
        w->unanswered[~span & 1] = 0;
    w->span = span;
}

static inline void window_sent(struct window *w, int64_t now_us)
{
    window_turn(w, now_us);
    w->unanswered[w->span & 1]++;
}

/* `ago_us`: since it was sent. */
static inline void window_answered(struct window *w, int64_t now_us, uint32_t ago_us)
{
    window_turn(w, now_us);
    uint64_t span = (uint64_t)(now_us - ago_us) >> WINDOW_SPAN_US_LOG2;
    if (span + 1 >= w->span && w->unanswered[span & 1] > 0)
        w->unanswered[span & 1]--;
}

static inline uint32_t window_count(struct window *w, int64_t now_us)
{
    window_turn(w, now_us);
    return w->unanswered[0] + w->unanswered[1];
}

#endif
