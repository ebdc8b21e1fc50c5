/* The simulated machine room: virtual time, the seed's randomness, events in order, processes, the trace.
 * Owns: struct world, struct event, struct process; the clocks, rand() and log of everything linked into the
 * simulation. May call: lib/base. Loop rule: one thread, virtual time; nothing here looks at the real clock.
 *
 * The simulation links the real dispatcher/, workers/, lib/store/live*, db_* and pg_txn, and stands in for what is
 * below:
 *
 *   loop.c        libev: timers of each process on virtual time
 *   net.c         how long a message takes, and what the seed does to it
 *   redis.c       lib/store/redis.h over redis_model.c (commands) and redis_scripts.c (one function per Lua file)
 *   pg.c          lib/store/pg.h over pg_model.c and pg_statements*.c (one function per statement)
 *   stream.c      lib/base/stream.h: a device's connection
 *   device.c      devices; caller.c: who submits, cancels, deletes; fault.c: what goes wrong; oracle.c: what must hold
 *
 * To add a move: a new .lua file needs model_<name> in redis_scripts.c; a new statement of lib/store/db_*.c needs
 * stmt_<name> in pg_statements*.c, or a line in pg_unused.c when no simulated process sends it. Both tables are made
 * from the sources by tests/sim/tables.py, so that one that is forgotten is a link error. test_redis_model.c and
 * test_pg_model.c then hold the model against the real server. */
#ifndef MUSTER_TESTS_SIM_WORLD_H
#define MUSTER_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MS 1000ll    /* microseconds */
#define S  1000000ll /* microseconds */

/* Virtual time of the world's begin, in milliseconds since 1970: a round number. */
#define WORLD_EPOCH_MS 1700000000000ll

struct world;
struct process;

/* Something that is to happen; embedded. `process`: in whose name (NULL: the world's own). While that is stopped its
 * events are held, and come when it goes on. */
struct event {
    int64_t at_us;
    uint64_t order;
    size_t place; /* in the heap, from 1; 0: not planned */
    struct process *process;
    void (*fn)(void *arg);
    void *arg;
    struct event *held; /* next of those held back */
    bool holding;
};
void event_plan(struct world *w, struct event *e, int64_t at_us, struct process *process, void (*fn)(void *arg),
                void *arg);
void event_cancel(struct world *w, struct event *e);
static inline bool event_planned(const struct event *e)
{
    return e->place || e->holding;
}

struct ev_loop;
enum process_kind { PROCESS_DISPATCHER, PROCESS_WORKER };
struct process {
    struct world *world;
    enum process_kind kind;
    int index; /* of its kind */
    char name[16];
    bool running;         /* made and not killed */
    bool stopped;         /* SIGSTOP */
    bool draining;        /* SIGTERM */
    bool dying;           /* being torn down: nothing it does reaches anybody */
    int64_t wall_skew_ms; /* of its CLOCK_REALTIME */
    int64_t slow_ms;      /* so far behind the world's what it goes by may be: as it began, and by small steps */
    /* The last time in which it may have been unable to say what it knows; 0: never. */
    int64_t unwell_since_us, unwell_us;
    struct ev_loop *loop; /* of this life */
    struct event *held_first, *held_last;
    unsigned lives;
    void *parts; /* struct dispatcher_parts, worker_parts */
};
/* SIGSTOP, SIGCONT. */
void process_stop(struct process *p);
void process_continue(struct process *p);

#define DISPATCHERS_MAX 3
#define WORKERS_MAX     4

struct redis_model;
struct redis_server;
struct pg_model;
struct pg_server;
struct device;
struct caller;
struct faults;
struct oracle;

/* What callers of this seed want beside what all may. */
enum wants { WANTS_USUAL, WANTS_RETRY, WANTS_THRESHOLDS, WANTS_DYNAMIC };

struct world {
    uint64_t seed, random[4];
    enum wants wants;
    uint32_t mailbox_max; /* open commands of a device beyond which it joins no dynamic batch; 0: any number */
    int64_t now_us;       /* CLOCK_MONOTONIC of every process */
    uint64_t orders, events, hash;
    struct event **heap;
    size_t heap_count, heap_room;
    struct process *current; /* whose code runs now */
    struct process dispatchers[DISPATCHERS_MAX], workers[WORKERS_MAX];
    int dispatcher_count, worker_count;
    bool tracing;
    bool over; /* a violation was found */
    unsigned mutation;
    struct redis_server *redis;
    struct redis_model *redis_model;
    struct pg_server *pg_server;
    struct pg_model *pg;
    struct device *devices;
    int device_count;
    struct caller *caller;
    struct faults *faults;
    struct oracle *oracle;
    char violation[512];
};

/* The world that the clocks, rand() and the log speak of: the one exception to "no mutable globals", since the code
 * under test asks for the time without saying whose. */
extern struct world *the_world;

void world_init(struct world *w, uint64_t seed);
void world_free(struct world *w);
/* Lets events happen until `until_us`, a violation, or nothing is planned any more. */
void world_run(struct world *w, int64_t until_us);
/* The process's CLOCK_REALTIME. */
static inline int64_t clock_wall_ms_of(const struct world *w, const struct process *p)
{
    return WORLD_EPOCH_MS + w->now_us / 1000 + p->wall_skew_ms;
}
int64_t world_wall_ms(const struct world *w); /* without anybody's skew: PostgreSQL's clock */

/* --- randomness: all of it --------------------------------------------------------------------------------------- */
uint64_t pick(struct world *w);
/* 0 … n - 1 */
static inline unsigned below(struct world *w, unsigned n)
{
    return (unsigned)(((pick(w) >> 32) * n) >> 32);
}
static inline int64_t between(struct world *w, int64_t least, int64_t most)
{
    return least + (int64_t)(pick(w) % (uint64_t)(most - least + 1));
}
static inline bool chance(struct world *w, unsigned in_a_thousand)
{
    return below(w, 1000) < in_a_thousand;
}

/* --- what is seen ------------------------------------------------------------------------------------------------ */
/* Mixed into the hash that two runs of one seed must share. */
static inline void mix(struct world *w, uint64_t v)
{
    w->hash = (w->hash ^ v) * 0x9e3779b97f4a7c15ull;
    w->hash ^= w->hash >> 29;
}
void trace_line(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define trace(w, ...)                                                                                                  \
    do {                                                                                                               \
        if ((w)->tracing)                                                                                              \
            trace_line(w, __VA_ARGS__);                                                                                \
    } while (0)
/* What must hold does not: the seed has failed; the first one is kept. */
void violated(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
