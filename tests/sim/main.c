/* The simulation: whole installations on virtual time, each decided by one number. See world.h for how it is built. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/caller.h"
#include "tests/sim/device.h"
#include "tests/sim/fault.h"
#include "tests/sim/mutation.h"
#include "tests/sim/oracle.h"
#include "tests/sim/pg.h"
#include "tests/sim/process.h"
#include "tests/sim/redis.h"
#include "tests/sim/scenario.h"
#include "tests/sim/stream.h"
#include "tests/sim/world.h"

#define SUBMIT_US (16 * S)  /* batches are submitted within so long */
#define HANG_US   (150 * S) /* after everything was put right, all must have come to an end */
#define GRACE_US  (4 * S)   /* for what is tidied up behind the last batch */

struct options {
    uint64_t from, to;
    int jobs;
    unsigned mutation;
    const struct scenario *scenario;
    bool trace, calm, once, every; /* every: scenario, one after another */
};

/* --- one seed
 * -------------------------------------------------------------------------------------------------------------------
 */

static void name_process(struct world *w, struct process *p, enum process_kind kind, int index)
{
    *p = (struct process){.world = w, .kind = kind, .index = index};
    snprintf(p->name, sizeof p->name, "%c%d", kind == PROCESS_DISPATCHER ? 'd' : 'w', index);
}

/* One seed in four, and one in eight each: so the others stay what they were. */
static enum wants wants_of(uint64_t seed)
{
    if (seed % 4 == 1)
        return WANTS_RETRY;
    return seed % 8 == 3 ? WANTS_THRESHOLDS : seed % 8 == 7 ? WANTS_DYNAMIC : WANTS_USUAL;
}

static void populate(struct world *w, bool calm, const struct scenario *scenario)
{
    w->wants = scenario && scenario->wants ? scenario->wants : wants_of(w->seed);
    w->mailbox_max = w->wants == WANTS_DYNAMIC && chance(w, 400) ? (uint32_t)between(w, 1, 4) : 0;
    w->dispatcher_count = (int)between(w, 1, chance(w, 200) ? DISPATCHERS_MAX : 2);
    w->worker_count = (int)between(w, 1, chance(w, 200) ? WORKERS_MAX : 3);
    if (scenario) {
        w->dispatcher_count = scenario->dispatchers;
        w->worker_count = scenario->workers;
    }
    faults_init(w, calm, scenario);
    sim_redis_init(w);
    sim_pg_init(w);
    devices_init(w, (int)between(w, 4, 40));
    oracle_init(w);
    for (int i = 0; i < w->dispatcher_count; i++)
        name_process(w, &w->dispatchers[i], PROCESS_DISPATCHER, i);
    for (int i = 0; i < w->worker_count; i++)
        name_process(w, &w->workers[i], PROCESS_WORKER, i);
    for (int i = 0; i < w->dispatcher_count; i++)
        process_start(&w->dispatchers[i]);
    for (int i = 0; i < w->worker_count; i++)
        process_start(&w->workers[i]);
    if (scenario && scenario->batches)
        caller_init_alike(w, scenario->batches, w->now_us + SUBMIT_US);
    else
        caller_init(w, (int)between(w, 1, 12), w->now_us + SUBMIT_US);
}

static void tear_down(struct world *w)
{
    for (int i = 0; i < w->dispatcher_count; i++)
        process_kill(&w->dispatchers[i]);
    for (int i = 0; i < w->worker_count; i++)
        process_kill(&w->workers[i]);
    caller_free(w);
    devices_free(w);
    links_free(w);
    sim_redis_free(w);
    sim_pg_free(w);
    oracle_free(w);
    faults_free(w);
    world_free(w);
}

/* Returns the world's hash; `violation` gets what went wrong, or "". */
static uint64_t run_seed(uint64_t seed, const struct options *o, bool traced, char violation[512], uint64_t *events)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    world_init(w, seed);
    w->mutation = o->mutation;
    w->tracing = traced;
    populate(w, o->calm, o->scenario);
    world_run(w, faults_end_us(w));
    if (!w->over)
        faults_heal(w);
    int64_t limit = w->now_us + HANG_US;
    while (!w->over && w->now_us < limit && !(oracle_quiet(w) && caller_done(w)))
        world_run(w, w->now_us + 500 * MS);
    world_run(w, w->now_us + GRACE_US);
    if (!w->over)
        oracle_judge(w);
    mix(w, pick(w));
    uint64_t hash = w->hash;
    memcpy(violation, w->violation, sizeof w->violation);
    *events += w->events;
    w->over = true;
    tear_down(w);
    free(w);
    return hash;
}

/* --- many seeds -------------------------------------------------------------------------------------------------- */

/* What the handler below says; made before, since it may not print. */
static char last_words[64];
static size_t last_words_len;

static void run_next(uint64_t seed)
{
    last_words_len = (size_t)snprintf(last_words, sizeof last_words, "seed %" PRIu64 " crashed\n", seed);
}

static void crashed(int number)
{
    ssize_t written = write(STDOUT_FILENO, last_words, last_words_len);
    (void)written;
    signal(number, SIG_DFL);
    raise(number);
}

static void report(uint64_t seed, const struct options *o, const char *violation)
{
    char ignored[512];
    uint64_t events = 0;
    printf("seed %" PRIu64 " fails: %s\n", seed, violation);
    if (o->once)
        return;
    printf("its schedule:\n");
    run_seed(seed, o, true, ignored, &events);
    printf("seed %" PRIu64 " fails: %s\n", seed, violation);
}

/* Seeds from + index, from + index + jobs, … Returns how many failed; stops at the first unless --once. */
static uint64_t run_share(const struct options *o, int index, uint64_t *done, uint64_t *events)
{
    uint64_t failed = 0;
    for (uint64_t seed = o->from + (uint64_t)index; seed <= o->to; seed += (uint64_t)o->jobs) {
        char violation[512];
        run_next(seed);
        uint64_t hash = run_seed(seed, o, o->trace, violation, events);
        ++*done;
        if (o->from == o->to)
            printf("seed %" PRIu64 ": hash %016" PRIx64 ", %" PRIu64 " events%s%s\n", seed, hash, *events,
                   *violation ? ", fails: " : "", violation);
        else if (*violation) {
            report(seed, o, violation);
            fflush(stdout);
        }
        failed += *violation != 0;
        if (failed && !o->once)
            break;
    }
    return failed;
}

struct tally {
    uint64_t done, failed, events;
};

static bool run_all(const struct options *o, struct tally *sum)
{
    int pipes[2];
    bool good = true;
    if (o->jobs == 1) {
        sum->failed = run_share(o, 0, &sum->done, &sum->events);
        return sum->failed == 0;
    }
    if (pipe(pipes) != 0)
        return false;
    for (int i = 0; i < o->jobs; i++)
        if (fork() == 0) {
            struct tally mine = {0};
            mine.failed = run_share(o, i, &mine.done, &mine.events);
            fflush(stdout);
            if (write(pipes[1], &mine, sizeof mine) != (ssize_t)sizeof mine)
                _exit(2);
            _exit(mine.failed != 0);
        }
    close(pipes[1]);
    for (struct tally one; read(pipes[0], &one, sizeof one) == (ssize_t)sizeof one;) {
        sum->done += one.done;
        sum->failed += one.failed;
        sum->events += one.events;
    }
    for (int status; wait(&status) > 0;)
        good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return good;
}

/* The same seeds of each. */
static bool run_scenarios(struct options *o, struct tally *sum)
{
    bool good = true;
    for (int i = 0; (o->scenario = scenario_at(i)) && (good || o->once); i++) {
        struct tally one = {0};
        bool kept = run_all(o, &one);
        if (!kept)
            printf("scenario %s\n", o->scenario->name);
        good = good && kept;
        sum->done += one.done;
        sum->failed += one.failed;
        sum->events += one.events;
    }
    return good;
}

/* --- options
 * ---------------------------------------------------------------------------------------------------------------------
 */

static const char usage[] =
    "usage: sim [--seed N [--trace]] [--seeds A..B] [--jobs N] [--once] [--calm] [--scenario S] [--mutation N]\n"
    "  --seed N      one seed; prints its hash: the same for the same program\n"
    "  --trace       everything that happens, with virtual times\n"
    "  --seeds A..B  all of these; the first that fails prints its schedule\n"
    "  --jobs N      processes\n"
    "  --once        go on after a seed has failed; one line each\n"
    "  --calm        nothing goes wrong\n"
    "  --scenario S  what goes wrong: see scenario.c; `all`: one after another\n"
    "  --mutation N  the models make a mistake: see mutation.h\n";

static bool read_scenario(struct options *o, const char *name)
{
    o->every = strcmp(name, "all") == 0;
    o->scenario = o->every ? scenario_at(0) : scenario_find(name);
    return o->scenario;
}

static void read_options(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"seed", 1, NULL, 's'},     {"seeds", 1, NULL, 'r'},    {"jobs", 1, NULL, 'j'},
        {"trace", 0, NULL, 't'},    {"once", 0, NULL, 'o'},     {"calm", 0, NULL, 'c'},
        {"mutation", 1, NULL, 'm'}, {"scenario", 1, NULL, 'n'}, {0}};
    int c;
    bool good = true;
    *o = (struct options){.from = 1, .to = 100, .jobs = 1};
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        char *end = NULL;
        if (c == 's')
            o->from = o->to = strtoull(optarg, &end, 10);
        else if (c == 'r') {
            o->from = strtoull(optarg, &end, 10);
            o->to = strncmp(end, "..", 2) == 0 ? strtoull(end + 2, &end, 10) : 0;
        } else if (c == 'j')
            o->jobs = (int)strtol(optarg, &end, 10);
        else if (c == 'm')
            o->mutation = (unsigned)strtoul(optarg, &end, 10);
        else if (c == 'n')
            good = read_scenario(o, optarg);
        o->trace = o->trace || c == 't';
        o->once = o->once || c == 'o';
        o->calm = o->calm || c == 'c';
        if (!good || c == '?' || (end && *end) || o->to < o->from || o->jobs < 1) {
            fputs(usage, stderr);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o;
    struct tally sum = {0};
    struct timespec begun, now;
    read_options(&o, argc, argv);
    if (sodium_init() < 0)
        return 2;
    signal(SIGABRT, crashed);
    signal(SIGSEGV, crashed);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    bool good = o.every ? run_scenarios(&o, &sum) : run_all(&o, &sum);
    clock_gettime(CLOCK_MONOTONIC, &now);
    double s = (double)(now.tv_sec - begun.tv_sec) + (double)(now.tv_nsec - begun.tv_nsec) / 1e9;
    if (o.from != o.to)
        printf("%" PRIu64 " seeds, %" PRIu64 " failed, %" PRIu64 " events, %.1f s\n", sum.done, sum.failed, sum.events,
               s);
    return good ? 0 : 1;
}
