#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "tests/sim/loop.h"

struct world *the_world;

/* --- randomness (xoshiro256**, seeded by splitmix64: Blackman and Vigna, public domain algorithms) -----------------
 */

static uint64_t spread(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint64_t rotate(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

uint64_t pick(struct world *w)
{
    uint64_t *s = w->random, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

/* --- events: a binary heap by time, then by the order in which they were planned ------------------------------------
 */

static bool before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void put(struct world *w, struct event *e, size_t at)
{
    w->heap[at] = e;
    e->place = at;
}

static void rise(struct world *w, struct event *e, size_t at)
{
    for (; at > 1 && before(e, w->heap[at / 2]); at /= 2)
        put(w, w->heap[at / 2], at);
    put(w, e, at);
}

static void sink(struct world *w, struct event *e, size_t at)
{
    for (size_t child; (child = 2 * at) <= w->heap_count; at = child) {
        if (child < w->heap_count && before(w->heap[child + 1], w->heap[child]))
            child++;
        if (!before(w->heap[child], e))
            break;
        put(w, w->heap[child], at);
    }
    put(w, e, at);
}

static void unhold(struct event *e)
{
    struct process *p = e->process;
    struct event **at = &p->held_first, *last = NULL;
    for (; *at != e; at = &(*at)->held)
        last = *at;
    *at = e->held;
    if (p->held_last == e)
        p->held_last = last;
    e->held = NULL;
    e->holding = false;
}

void event_cancel(struct world *w, struct event *e)
{
    if (e->holding)
        unhold(e);
    if (!e->place)
        return;
    size_t at = e->place;
    struct event *last = w->heap[w->heap_count--];
    e->place = 0;
    if (last == e)
        return;
    if (at > 1 && before(last, w->heap[at / 2]))
        rise(w, last, at);
    else
        sink(w, last, at);
}

void event_plan(struct world *w, struct event *e, int64_t at_us, struct process *process, void (*fn)(void *arg),
                void *arg)
{
    event_cancel(w, e);
    if (w->heap_count + 2 > w->heap_room) {
        w->heap_room = w->heap_room ? w->heap_room * 2 : 256;
        w->heap = realloc(w->heap, w->heap_room * sizeof *w->heap);
        if (!w->heap)
            abort();
    }
    e->at_us = at_us > w->now_us ? at_us : w->now_us;
    e->order = ++w->orders;
    e->process = process;
    e->fn = fn;
    e->arg = arg;
    rise(w, e, ++w->heap_count);
}

static void hold(struct process *p, struct event *e)
{
    e->holding = true;
    e->held = NULL;
    if (p->held_first)
        p->held_last->held = e;
    else
        p->held_first = e;
    p->held_last = e;
}

/* A process wakes for the event: what comes first in its turn does. False when that was the end of the event. */
static bool turn(struct world *w, const struct event *e)
{
    struct process *p = e->process;
    if (!p || p->stopped || !p->loop)
        return true;
    w->current = p;
    sim_loop_turn(p->loop);
    w->current = NULL;
    return w->heap_count && w->heap[1] == e;
}

void world_run(struct world *w, int64_t until_us)
{
    while (w->heap_count && !w->over && w->heap[1]->at_us <= until_us) {
        struct event *e = w->heap[1];
        w->now_us = e->at_us;
        if (!turn(w, e))
            continue;
        event_cancel(w, e);
        if (e->process && e->process->stopped) {
            hold(e->process, e);
            continue;
        }
        w->events++;
        mix(w, (uint64_t)w->now_us ^ e->order << 40);
        w->current = e->process;
        e->fn(e->arg);
        w->current = NULL;
    }
    if (!w->over && w->now_us < until_us)
        w->now_us = until_us;
}

void process_stop(struct process *p)
{
    p->stopped = true;
}

void process_continue(struct process *p)
{
    p->stopped = false;
    while (p->held_first) {
        struct event *e = p->held_first;
        unhold(e);
        event_plan(p->world, e, p->world->now_us, p, e->fn, e->arg);
    }
}

/* --- life -----------------------------------------------------------------------------------------------------------
 */

void world_init(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->seed = seed;
    for (uint64_t i = 0, x = seed * 0x2545f4914f6cdd1dull + 1; i < 4; i++)
        w->random[i] = spread(&x);
    w->now_us = 1000 * S;
    the_world = w;
}

void world_free(struct world *w)
{
    free(w->heap);
    the_world = NULL;
}

int64_t world_wall_ms(const struct world *w)
{
    return WORLD_EPOCH_MS + w->now_us / 1000;
}

/* --- what the code under test asks for --------------------------------------------------------------------------- */

int64_t clock_wall_ms(void)
{
    const struct process *p = the_world->current;
    return world_wall_ms(the_world) + (p ? p->wall_skew_ms : 0);
}

int64_t clock_mono_us(void)
{
    return the_world->now_us;
}

/* In place of the C library's: a leader's jitter comes from the seed too. */
int rand(void)
{
    return (int)(pick(the_world) >> 33);
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    struct world *w = the_world;
    char text[512] = "";
    (void)level;
    if (!w || !w->tracing)
        return;
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
    }
    trace_line(w, "log %s %s", event, text);
}

const char *log_quote(const char *s)
{
    return s;
}

const char *log_quote_n(const void *s, unsigned long n)
{
    static char text[128];
    snprintf(text, sizeof text, "%.*s", (int)n, (const char *)s);
    return text;
}

/* --- what is seen ------------------------------------------------------------------------------------------------ */

__attribute__((format(printf, 2, 0))) static void print_line(const struct world *w, const char *fmt, va_list ap)
{
    printf("%10.6f %-3s ", (double)(w->now_us - 1000 * S) / 1e6, w->current ? w->current->name : "");
    vprintf(fmt, ap);
    putchar('\n');
}

void trace_line(struct world *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_line(w, fmt, ap);
    va_end(ap);
}

void violated(struct world *w, const char *fmt, ...)
{
    va_list ap;
    if (w->over)
        return;
    w->over = true;
    va_start(ap, fmt);
    int n = snprintf(w->violation, sizeof w->violation, "at %.6f: ", (double)(w->now_us - 1000 * S) / 1e6);
    vsnprintf(w->violation + n, sizeof w->violation - (size_t)n, fmt, ap);
    va_end(ap);
    trace(w, "VIOLATED %s", w->violation);
}
