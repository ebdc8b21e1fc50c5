#include "cli/chaos/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOOK_S 1.0
#define MIB    (1024.0 * 1024)

/* Program and libraries, and what queues, caches and connection pools may hold in a run of this size. */
#define DISPATCHER_BOUND (192 * MIB)
#define WORKER_BOUND     (96 * MIB)
/* A device with OpenSSL's records, its handshake included; all of them may be with one worker. */
#define WORKER_DEVICE_BOUND (48.0 * 1024)
#define REDIS_BOUND         (192 * MIB)

/* AddressSanitizer's own memory, and what it keeps of what was freed. */
#ifdef __SANITIZE_ADDRESS__
#define SANITIZER_FACTOR 6
#else
#define SANITIZER_FACTOR 1
#endif

enum kind { OF_DISPATCHER, OF_WORKER, OF_REDIS };

struct chaos_memory {
    struct chaos *chaos;
    ev_timer timer;
    uint64_t peaks[MEMORY_KINDS];
    bool complained[MEMORY_KINDS];
};

static uint64_t bound_of(const struct chaos_memory *m, int kind)
{
    double devices = (double)m->chaos->options.devices;

    return (uint64_t)(kind == OF_DISPATCHER ? DISPATCHER_BOUND * SANITIZER_FACTOR
                      : kind == OF_WORKER   ? (WORKER_BOUND + devices * WORKER_DEVICE_BOUND) * SANITIZER_FACTOR
                                            : REDIS_BOUND);
}

/* Resident bytes of a process; 0 when it is not there. */
static uint64_t resident(pid_t pid)
{
    char path[64];
    unsigned long size, pages = 0;

    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *in = pid > 0 ? fopen(path, "re") : NULL;
    if (!in)
        return 0;
    if (fscanf(in, "%lu %lu", &size, &pages) != 2)
        pages = 0;
    fclose(in);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void look(struct chaos_memory *m, int kind, const struct dev_process *p)
{
    uint64_t bytes = resident(p->pid);

    if (bytes > m->peaks[kind])
        m->peaks[kind] = bytes;
    if (bytes <= bound_of(m, kind) || m->complained[kind])
        return;
    m->complained[kind] = true;
    verdict_complain(&m->chaos->verdict, BREACH_MEMORY, "%s: %.0f MiB resident, %.0f are its bound", p->name,
                     (double)bytes / MIB, (double)bound_of(m, kind) / MIB);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int events)
{
    struct chaos_memory *m = w->data;
    struct chaos *c = m->chaos;

    (void)loop;
    (void)events;
    for (int i = 0; i < c->options.dispatchers; i++)
        look(m, OF_DISPATCHER, &c->dev.dispatchers[i]);
    for (int i = 0; i < c->options.workers; i++)
        look(m, OF_WORKER, &c->dev.workers[i]);
    look(m, OF_REDIS, &c->dev.redis);
}

struct chaos_memory *memory_new(struct chaos *c)
{
    struct chaos_memory *m = calloc(1, sizeof *m);

    if (!m)
        abort();
    m->chaos = c;
    ev_timer_init(&m->timer, on_timer, LOOK_S, LOOK_S);
    m->timer.data = m;
    ev_timer_start(c->dev.group.loop, &m->timer);
    return m;
}

void memory_free(struct chaos_memory **m)
{
    if (!*m)
        return;
    ev_timer_stop((*m)->chaos->dev.group.loop, &(*m)->timer);
    free(*m);
    *m = NULL;
}

void memory_peaks(const struct chaos_memory *m, struct memory_peak out[MEMORY_KINDS])
{
    static const char *const names[MEMORY_KINDS] = {"dispatcher", "worker", "redis"};

    for (int i = 0; i < MEMORY_KINDS; i++)
        out[i] = (struct memory_peak){names[i], m ? m->peaks[i] : 0, m ? bound_of(m, i) : 0};
}
