#include "bench/fleet/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/fleet/process.h"
#include "bench/fleet/record.h"
#include "bench/fleet/report.h"

/* Descriptors of a process that are not connections: standard ones, epoll, signals, a file being written, and the one a
 * device connects anew with before the kernel has let go of the old. */
#define SPARE_DESCRIPTORS 128

/* Between two looks at the counters when --exit-after waits for one. */
#define TICK_MS 50

#define CONTROL_BYTES 256

struct supervisor {
    const struct options *options;
    const struct credentials *credentials;
    struct stats *stats; /* one per process, shared */
    pid_t *pids;         /* 0: ended */
    int processes, alive;
    int signals, notify, timer;
    bool ready, stop, failed, dump_asked;
    uint64_t dumps_wanted; /* per process */
    int64_t started_us, last_line_us;
    uint64_t last_acked, last_received;
    char line[CONTROL_BYTES]; /* of standard input, not yet whole */
    size_t line_len;
    bool input_over;
};

static struct stats total(const struct supervisor *s)
{
    struct stats sum = {0};

    for (int i = 0; i < s->processes; i++)
        stats_add(&sum, &s->stats[i]);
    return sum;
}

static double seconds(const struct supervisor *s)
{
    return (double)(clock_mono_us() - s->started_us) / 1e6;
}

static void signal_all(struct supervisor *s, int number)
{
    for (int i = 0; s->pids && i < s->processes; i++)
        if (s->pids[i] > 0)
            kill(s->pids[i], number);
}

/* The soft limit goes up to the hard one; more devices than that need more processes. Returns 0 without room. */
static int processes_needed(const struct options *o)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max <= SPARE_DESCRIPTORS)
        return 0;
    rlim_t each = limit.rlim_max - SPARE_DESCRIPTORS;
    rlim_t needed = (o->devices + each - 1) / each;
    if (needed < o->processes)
        needed = o->processes;
    return (int)(needed < o->devices ? needed : o->devices);
}

static bool open_descriptors(struct supervisor *s)
{
    long tick_ms = s->options->exit_after ? TICK_MS : 1000;
    const struct timespec gap = {tick_ms / 1000, tick_ms % 1000 * 1000000};
    const struct itimerspec every = {gap, gap};
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2); /* only passed on, from 'go' */
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    s->notify = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return s->signals >= 0 && s->notify >= 0 && s->timer >= 0 && timerfd_settime(s->timer, 0, &every, NULL) == 0;
}

static bool start_processes(struct supervisor *s)
{
    for (int i = 0; i < s->processes; i++) {
        const struct process_start start = {.options = s->options,
                                            .credentials = s->credentials,
                                            .stats = &s->stats[i],
                                            .number = i,
                                            .of = s->processes,
                                            .notify = s->notify};
        fflush(NULL);
        s->pids[i] = fork();
        if (s->pids[i] == 0)
            process_run(&start);
        if (s->pids[i] < 0)
            return false;
        s->alive++;
    }
    return true;
}

static void print_second(struct supervisor *s)
{
    struct report r = {.out = stderr, .json = s->options->json};
    struct stats sum = total(s);
    int64_t now = clock_mono_us();
    double past = (double)(now - s->last_line_us) / 1e6;

    report_begin(&r, "fleet");
    report_number(&r, "seconds", seconds(s));
    if (r.json) {
        report_stats(&r, &sum);
    } else {
        static const enum tally shown[] = {STAT_CONNECTED, STAT_READY,      STAT_RECEIVED, STAT_EXECUTED,
                                           STAT_ACKED,     STAT_RECONNECTS, STAT_FAILURES};
        for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
            report_count(&r, stat_name(shown[i]), sum.v[shown[i]]);
    }
    report_count(&r, "received_s", (uint64_t)((double)(sum.v[STAT_RECEIVED] - s->last_received) / past));
    report_count(&r, "acked_s", (uint64_t)((double)(sum.v[STAT_ACKED] - s->last_acked) / past));
    report_latency(&r, &sum.push_puback);
    report_end(&r);
    s->last_line_us = now;
    s->last_acked = sum.v[STAT_ACKED];
    s->last_received = sum.v[STAT_RECEIVED];
}

static void print_total(struct supervisor *s, const char *event)
{
    struct report r = {.out = stdout, .json = s->options->json};
    struct stats sum = total(s);
    struct rusage used;

    report_begin(&r, event);
    report_count(&r, "devices", s->options->devices);
    report_count(&r, "processes", (uint64_t)s->processes);
    report_number(&r, "seconds", seconds(s));
    report_stats(&r, &sum);
    report_latency(&r, &sum.push_puback);
    if (s->alive == 0 && getrusage(RUSAGE_CHILDREN, &used) == 0)
        report_number(&r, "cpu_seconds",
                      (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                          (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    report_end(&r);
}

static void check_ready(struct supervisor *s)
{
    struct report r = {.out = stdout, .json = s->options->json};

    if (s->ready)
        return;
    struct stats sum = total(s);
    if (sum.v[STAT_CONNECTS] - sum.v[STAT_RECONNECTS] < s->options->devices)
        return;
    s->ready = true;
    report_begin(&r, "ready");
    report_count(&r, "devices", s->options->devices);
    report_number(&r, "seconds", seconds(s));
    report_end(&r);
}

static void ask_dump(struct supervisor *s)
{
    struct report r = {.out = stdout, .json = s->options->json};

    if (!s->options->record) {
        report_begin(&r, "unrecorded");
        report_text(&r, "reason", "no-record-file");
        report_end(&r);
    } else if (!s->dump_asked) {
        s->dump_asked = true;
        s->dumps_wanted++;
        signal_all(s, SIGUSR1);
    }
}

/* Joins the parts once every process has written its own. */
static void finish_dump(struct supervisor *s)
{
    struct report r = {.out = stdout, .json = s->options->json};

    for (int i = 0; i < s->processes; i++)
        if (__atomic_load_n(&s->stats[i].dumps, __ATOMIC_ACQUIRE) < s->dumps_wanted)
            return;
    s->dump_asked = false;
    if (total(s).dump_failures > 0 || record_join(s->options->record, s->processes) != ERR_OK) {
        s->failed = true;
        return;
    }
    report_begin(&r, "recorded");
    report_text(&r, "file", s->options->record);
    report_end(&r);
}

static void reap(struct supervisor *s)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < s->processes; i++) {
            if (s->pids[i] != pid)
                continue;
            s->pids[i] = 0;
            s->alive--;
            if (s->stop && WIFEXITED(status) && WEXITSTATUS(status) == 0)
                continue;
            fprintf(stderr, "muster-fleet: process %d of %d ended by itself (status 0x%x)\n", i, s->processes, status);
            s->failed = s->stop = true;
        }
}

static void on_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGUSR1)
            ask_dump(s);
        else if (info.ssi_signo == SIGHUP)
            signal_all(s, SIGHUP);
        else if (info.ssi_signo == SIGCHLD)
            reap(s);
        else
            s->stop = true;
    }
}

static void on_line(struct supervisor *s, const char *line)
{
    if (strcmp(line, "quit") == 0)
        s->stop = true;
    else if (strcmp(line, "dump") == 0)
        ask_dump(s);
    else if (strcmp(line, "go") == 0)
        signal_all(s, SIGUSR2);
    else if (strcmp(line, "reconnect") == 0)
        signal_all(s, SIGHUP);
    else if (strcmp(line, "stats") == 0)
        print_total(s, "stats");
    else
        fprintf(stderr,
                "muster-fleet: unknown word on standard input; quit, dump, stats, go and reconnect are known\n");
}

static void on_input(struct supervisor *s)
{
    ssize_t n = read(STDIN_FILENO, s->line + s->line_len, sizeof s->line - s->line_len - 1);
    char *rest = s->line;

    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        s->stop = s->input_over = true;
    if (n <= 0)
        return;
    s->line_len += (size_t)n;
    s->line[s->line_len] = '\0';
    while (strchr(rest, '\n'))
        on_line(s, strsep(&rest, "\n"));
    s->line_len = strlen(rest);
    memmove(s->line, rest, s->line_len);
    if (s->line_len == sizeof s->line - 1)
        s->line_len = 0; /* no such word: forget it */
}

static void on_tick(struct supervisor *s)
{
    uint64_t ticks;

    if (read(s->timer, &ticks, sizeof ticks) != (ssize_t)sizeof ticks)
        return;
    if (s->options->exit_after && total(s).v[STAT_ACKED] >= s->options->exit_after)
        s->stop = true;
    if (!s->options->quiet && clock_mono_us() - s->last_line_us >= 950000)
        print_second(s);
}

static void wait_once(struct supervisor *s)
{
    struct pollfd fds[] = {{s->signals, POLLIN, 0},
                           {s->notify, POLLIN, 0},
                           {s->timer, POLLIN, 0},
                           {s->options->control && !s->input_over ? STDIN_FILENO : -1, POLLIN, 0}};
    uint64_t n;

    if (poll(fds, sizeof fds / sizeof fds[0], -1) <= 0)
        return;
    if (fds[0].revents)
        on_signals(s);
    if (fds[1].revents && read(s->notify, &n, sizeof n) > 0) {
        check_ready(s);
        if (s->dump_asked)
            finish_dump(s);
    }
    if (fds[2].revents) {
        check_ready(s);
        on_tick(s);
    }
    if (fds[3].revents)
        on_input(s);
}

int supervisor_run(const struct options *options, const struct credentials *credentials)
{
    struct supervisor s = {.options = options, .credentials = credentials, .started_us = clock_mono_us()};

    s.last_line_us = s.started_us;
    s.processes = processes_needed(options);
    if (s.processes == 0 || !open_descriptors(&s)) {
        fprintf(stderr, "muster-fleet: no descriptors: %s\n", strerror(errno));
        return 1;
    }
    s.pids = calloc((size_t)s.processes, sizeof *s.pids);
    s.stats =
        mmap(NULL, (size_t)s.processes * sizeof *s.stats, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!s.pids || s.stats == MAP_FAILED || !start_processes(&s)) {
        fprintf(stderr, "muster-fleet: cannot start its processes: %s\n", strerror(errno));
        signal_all(&s, SIGTERM);
        return 1;
    }
    while (!s.stop)
        wait_once(&s);
    signal_all(&s, SIGTERM);
    if (options->record) {
        s.dump_asked = true;
        s.dumps_wanted++;
    }
    while (s.alive > 0)
        wait_once(&s);
    if (s.dump_asked)
        finish_dump(&s);
    print_total(&s, "done");
    munmap(s.stats, (size_t)s.processes * sizeof *s.stats);
    free(s.pids);
    return s.failed;
}
