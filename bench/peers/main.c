/* muster-peers: clients of the job queues that Muster is held against. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peers/run.h"
#include "lib/base/clock.h"
#include "lib/base/config.h"

struct peer {
    const char *name;
    void (*enqueue)(struct run *r);
    void (*process)(struct run *r);
    uint32_t batch, window; /* what did best here */
    const char *kind;
};

static const struct peer PEERS[] = {
    {"redis-lists", redis_lists_enqueue, redis_lists_process, 100, 2000, NULL},
    {"redis-batches", redis_lists_enqueue, redis_batches_process, 100, 2000, NULL},
    {"redis-streams", redis_streams_enqueue, redis_streams_process, 200, 2000, NULL},
    {"beanstalkd", beanstalkd_enqueue, beanstalkd_process, 1, 100, NULL},
    {"jetstream", jetstream_enqueue, jetstream_process, 1000, 4000, NULL},
    {"rabbitmq", rabbitmq_enqueue, rabbitmq_process, 200, 2000, "classic"},
    {"skip-locked", skip_locked_enqueue, skip_locked_process, 5000, 2, "delete"},
    {0},
};

struct settings {
    char *peer, *role, *at, *kind, *done;
    int64_t jobs, batch, window;
};

static const struct peer *find(const char *name)
{
    const struct peer *p = PEERS;

    while (p->name && strcmp(p->name, name) != 0)
        p++;
    if (!p->name)
        die("--peer %s: none of redis-lists, redis-batches, redis-streams, beanstalkd, jetstream, rabbitmq, "
            "skip-locked",
            name);
    return p;
}

static void load(struct settings *s, int argc, char **argv)
{
    struct config_option list[] = {
        {"peer", CONFIG_STRING, &s->peer, NULL, 0, 0, "redis-lists, redis-batches, redis-streams, beanstalkd, …"},
        {"role", CONFIG_STRING, &s->role, NULL, 0, 0, "enqueue or process"},
        {"at", CONFIG_STRING, &s->at, NULL, 0, 0, "unix:/path, 127.0.0.1:port, or a connection string of PostgreSQL"},
        {"jobs", CONFIG_INT, &s->jobs, "100000", 1, 99999999, "jobs to enqueue, or to wait for"},
        {"kind", CONFIG_STRING, &s->kind, NULL, 0, 0,
         "of queue: classic or quorum of rabbitmq, delete or keep of skip-locked; none: the first"},
        {"batch", CONFIG_INT, &s->batch, "0", 0, 100000, "jobs in one request; 0: what does best"},
        {"window", CONFIG_INT, &s->window, "0", 0, 1000000, "jobs on the way (skip-locked: connections); 0: the same"},
        {"done", CONFIG_STRING, &s->done, NULL, 0, 0, "file that gets one byte a job: how often it was completed"},
        {0},
    };

    config_load("muster-peers", "Clients of the job queues that Muster is held against.", list, argc, argv, 0);
    if (!s->peer || !s->role || !s->at)
        die("--peer, --role and --at are needed");
    if (strcmp(s->role, "enqueue") != 0 && strcmp(s->role, "process") != 0)
        die("--role %s: neither enqueue nor process", s->role);
}

static void save(const struct run *r, const char *path)
{
    FILE *f = fopen(path, "we");

    if (!f || fwrite(r->done, 1, r->jobs, f) != r->jobs || fclose(f) != 0)
        die("%s: cannot be written", path);
}

static void free_settings(struct settings *s)
{
    free(s->peer);
    free(s->role);
    free(s->at);
    free(s->kind);
    free(s->done);
}

int main(int argc, char **argv)
{
    struct settings s = {0};

    load(&s, argc, argv);
    const struct peer *p = find(s.peer);
    struct run r = {.at = s.at, .jobs = (uint32_t)s.jobs, .kind = s.kind ? s.kind : p->kind};
    r.batch = s.batch ? (uint32_t)s.batch : p->batch;
    r.window = s.window ? (uint32_t)s.window : p->window;
    r.done = calloc(r.jobs, 1);
    if (!r.done)
        die("no memory");
    (strcmp(s.role, "enqueue") == 0 ? p->enqueue : p->process)(&r);
    int64_t ended = clock_mono_us(), cpu = run_cpu_us() - r.began_cpu_us;
    if (s.done)
        save(&r, s.done);
    printf("{\"began\":%.6f,\"ended\":%.6f,\"cpu_us\":%lld}\n", (double)r.began_us / 1e6, (double)ended / 1e6,
           (long long)cpu);
    free(r.done);
    free_settings(&s);
    return 0;
}
