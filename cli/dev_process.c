#include "cli/dev_process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/owned.h"

/* Lines of a log shown when its process failed. */
#define LOG_TAIL_BYTES 2000

static void on_signal(struct ev_loop *loop, ev_signal *w, int events)
{
    struct dev_group *g = w->data;

    (void)events;
    g->stopping = g->broken = true;
    ev_break(loop, EVBREAK_ALL);
}

/* PostgreSQL refuses to run as root. */
static bool find_user(struct dev_group *g)
{
    static const char *const names[] = {"postgres", "nobody"};

    if (geteuid() != 0)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct passwd *user = getpwnam(names[i]);
        if (!user || user->pw_uid == 0)
            continue;
        g->drop = true;
        g->uid = user->pw_uid;
        g->gid = user->pw_gid;
        return true;
    }
    fprintf(stderr, "%s: PostgreSQL refuses root, and there is neither a user postgres nor nobody\n", g->command);
    return false;
}

bool dev_group_init(struct dev_group *g, const char *command)
{
    g->command = command;
    g->loop = ev_default_loop(EVFLAG_AUTO);
    ev_signal_init(&g->on_int, on_signal, SIGINT);
    ev_signal_init(&g->on_term, on_signal, SIGTERM);
    g->on_int.data = g->on_term.data = g;
    ev_signal_start(g->loop, &g->on_int);
    ev_signal_start(g->loop, &g->on_term);
    return find_user(g);
}

void dev_group_free(struct dev_group *g)
{
    ev_signal_stop(g->loop, &g->on_int);
    ev_signal_stop(g->loop, &g->on_term);
}

void dev_process_init(struct dev_process *p, struct dev_group *group, const char *log_folder, const char *name,
                      int number)
{
    *p = (struct dev_process){.group = group, .output = -1, .death_signal = SIGTERM};
    if (number > 0)
        snprintf(p->name, sizeof p->name, "%s-%d", name, number);
    else
        snprintf(p->name, sizeof p->name, "%s", name);
    snprintf(p->log_path, sizeof p->log_path, "%s/%s.log", log_folder, p->name);
}

void dev_process_arg(struct dev_process *p, const char *text)
{
    if (p->argc == DEV_ARGS_MAX - 1 || !(p->argv[p->argc++] = strdup(text))) {
        fprintf(stderr, "%s: %s: too many flags\n", p->group->command, p->name);
        exit(2);
    }
}

void dev_process_args(struct dev_process *p, ...)
{
    va_list ap;

    va_start(ap, p);
    for (const char *text; (text = va_arg(ap, const char *)) != NULL;)
        dev_process_arg(p, text);
    va_end(ap);
}

void dev_process_env(struct dev_process *p, const char *text)
{
    if (p->env_count < DEV_ENV_MAX && (p->env[p->env_count] = strdup(text)) != NULL)
        p->env_count++;
}

void dev_process_env_clear(struct dev_process *p)
{
    for (int i = 0; i < p->env_count; i++)
        free(p->env[i]);
    p->env_count = 0;
}

/* In the child: everything our parent's settings and terminal could change is taken away. */
static _Noreturn void run_child(const struct dev_process *p, int output, pid_t parent)
{
    const struct dev_group *g = p->group;
    sigset_t none;
    char **to = environ;

    setsid(); /* Ctrl-C is for our parent, who ends us in order */
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* what came since the fork is for us, and now does what it should */
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0 || dup2(in, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 || chdir("/") != 0)
        _exit(127);
    if (p->unprivileged && g->drop && (setgroups(0, NULL) != 0 || setgid(g->gid) != 0 || setuid(g->uid) != 0))
        _exit(127);
    /* After the change of user, which takes it back. */
    prctl(PR_SET_PDEATHSIG, p->death_signal);
    if (getppid() != parent)
        _exit(127);
    for (char **from = environ; *from; from++)
        if (strncmp(*from, "MUSTER_", 7) != 0)
            *to++ = *from;
    *to = NULL;
    for (int i = 0; i < p->env_count; i++)
        putenv(p->env[i]);
    execvp(p->argv[0], p->argv);
    dprintf(2, "%s: %s\n", p->argv[0], strerror(errno));
    _exit(127);
}

/* Copies the value of " key=" out of a log line. */
static void field(const char *line, const char *key, char out[DEV_ADDRESS_BYTES])
{
    const char *at = strstr(line, key);

    if (!at)
        return;
    at += strlen(key);
    size_t n = strcspn(at, " \n");
    if (n < DEV_ADDRESS_BYTES) {
        memcpy(out, at, n);
        out[n] = '\0';
    }
}

static void on_line(struct dev_process *p, const char *line)
{
    if (p->log)
        fprintf(p->log, "%s\n", line);
    if (p->heard)
        p->heard(p->heard_arg, line);
    /* Daemons log event=ready; the fleet prints a line that begins with it. */
    if (!p->ready && (strstr(line, " event=ready") || strncmp(line, "ready ", 6) == 0)) {
        field(line, " listen=", p->listen);
        field(line, " plain=", p->listen_plain);
        field(line, " admin=", p->admin);
        p->ready = true;
        ev_break(p->group->loop, EVBREAK_ALL);
    }
}

/* Takes what the pipe has; false when that is nothing. */
static bool read_some(struct dev_process *p)
{
    ssize_t n = read(p->output, p->line + p->line_len, sizeof p->line - p->line_len - 1);

    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            ev_io_stop(p->group->loop, &p->on_output);
        return false;
    }
    p->line_len += (size_t)n;
    p->line[p->line_len] = '\0';
    char *rest = p->line, *end;
    while ((end = strchr(rest, '\n')) != NULL) {
        *end = '\0';
        on_line(p, rest);
        rest = end + 1;
    }
    p->line_len = strlen(rest);
    memmove(p->line, rest, p->line_len + 1);
    if (p->line_len == sizeof p->line - 1) { /* longer than any line of ours: passed on in pieces */
        on_line(p, p->line);
        p->line_len = 0;
    }
    if (p->log)
        fflush(p->log);
    return true;
}

static void on_output(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop;
    (void)events;
    read_some(w->data);
}

static void tell_end(const struct dev_process *p)
{
    if (WIFSIGNALED(p->status))
        fprintf(stderr, "%s: %s was killed by signal %d\n", p->group->command, p->name, WTERMSIG(p->status));
    else
        fprintf(stderr, "%s: %s ended by itself with status %d\n", p->group->command, p->name, WEXITSTATUS(p->status));
}

/* What is still in the pipe, and the end of the log on stderr. */
static void show_log(struct dev_process *p)
{
    char tail[LOG_TAIL_BYTES + 1];
    FILE *in = fopen(p->log_path, "re");

    if (!in)
        return;
    if (fseek(in, -LOG_TAIL_BYTES, SEEK_END) != 0)
        rewind(in);
    tail[fread(tail, 1, LOG_TAIL_BYTES, in)] = '\0';
    fclose(in);
    const char *line = strchr(tail, '\n');
    fprintf(stderr, "--- end of %s:\n%s", p->log_path, strlen(tail) == LOG_TAIL_BYTES && line ? line + 1 : tail);
}

bool dev_process_again(struct dev_process *p)
{
    for (int i = 0; i + 1 < p->argc; i++) {
        const char *known = strcmp(p->argv[i], "--listen") == 0         ? p->listen
                            : strcmp(p->argv[i], "--listen-plain") == 0 ? p->listen_plain
                            : strcmp(p->argv[i], "--admin-listen") == 0 ? p->admin
                                                                        : "";
        char *copy = *known ? strdup(known) : NULL;
        if (!copy)
            continue;
        free(p->argv[i + 1]);
        p->argv[i + 1] = copy;
        owned(copy);
    }
    return dev_process_start(p);
}

static void on_end(struct ev_loop *loop, ev_child *w, int events)
{
    struct dev_process *p = w->data;

    (void)events;
    ev_child_stop(loop, w);
    p->status = w->rstatus;
    p->ended = true;
    p->pid = 0;
    /* To the end of what is there, not of the pipe: children of its own may hold that for a while yet. */
    while (read_some(p))
        continue;
    ev_io_stop(loop, &p->on_output);
    close(p->output);
    p->output = -1;
    if (p->log)
        fclose(p->log);
    p->log = NULL;
    if (!p->told && !p->group->ending) {
        tell_end(p);
        if (p->daemon && p->ready && p->group->restart) {
            if (!dev_process_again(p))
                p->group->failed = p->group->broken = true;
            return;
        }
        p->group->failed = p->group->broken = true;
    }
    ev_break(loop, EVBREAK_ALL);
}

bool dev_process_start(struct dev_process *p)
{
    int ends[2];
    pid_t parent = getpid();
    sigset_t all, before;

    p->ready = p->ended = p->told = false;
    p->line_len = 0;
    bool piped = pipe2(ends, O_CLOEXEC) == 0;
    FILE *log = piped ? fopen(p->log_path, "ae") : NULL;
    if (!log) {
        fprintf(stderr, "%s: %s: %s\n", p->group->command, p->log_path, strerror(errno));
        if (piped) {
            close(ends[0]);
            close(ends[1]);
        }
        return false;
    }
    fflush(NULL);
    /* Until it is itself, the child has our signal handlers: a signal to it then would be lost. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    p->pid = fork();
    if (p->pid == 0)
        run_child(p, ends[1], parent);
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (p->pid < 0) {
        p->pid = 0;
        close(ends[0]);
        fclose(log);
        fprintf(stderr, "%s: %s: %s\n", p->group->command, p->name, strerror(errno));
        return false;
    }
    p->log = log;
    p->output = ends[0];
    fcntl(p->output, F_SETFL, O_NONBLOCK);
    ev_io_init(&p->on_output, on_output, p->output, EV_READ);
    ev_child_init(&p->on_end, on_end, p->pid, 0);
    p->on_output.data = p->on_end.data = p;
    ev_io_start(p->group->loop, &p->on_output);
    ev_child_start(p->group->loop, &p->on_end);
    return true;
}

static void on_time(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)events;
    *(bool *)w->data = true;
    ev_break(loop, EVBREAK_ALL);
}

/* Runs the loop until `done`, the time is over, or (unless we are ending) a signal or a failure. */
static bool wait_until(struct dev_process *p, bool (*done)(struct dev_process *p), double seconds)
{
    struct dev_group *g = p->group;
    bool late = false;
    ev_timer timer;

    ev_timer_init(&timer, on_time, seconds, 0.);
    timer.data = &late;
    ev_timer_start(g->loop, &timer);
    while (!done(p) && !late && (g->ending || !g->broken))
        ev_run(g->loop, 0);
    ev_timer_stop(g->loop, &timer);
    return done(p);
}

static bool is_ready(struct dev_process *p)
{
    return p->ready || p->ended;
}

static bool has_ended(struct dev_process *p)
{
    return p->ended;
}

bool dev_process_wait_ready(struct dev_process *p, double seconds)
{
    wait_until(p, is_ready, seconds);
    if (p->ready && !p->ended)
        return true;
    if (!p->group->stopping) {
        if (!p->ended && !p->group->failed)
            fprintf(stderr, "%s: %s was not ready within %.0f s\n", p->group->command, p->name, seconds);
        show_log(p);
    }
    return false;
}

bool dev_process_wait_end(struct dev_process *p, double seconds)
{
    p->told = true; /* it may end */
    bool ended = wait_until(p, has_ended, seconds);
    if (ended && WIFEXITED(p->status) && WEXITSTATUS(p->status) == 0)
        return true;
    if (!p->group->stopping) {
        if (ended)
            tell_end(p);
        show_log(p);
    }
    return false;
}

static void on_again(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)w;
    (void)events;
    ev_break(loop, EVBREAK_ALL);
}

bool dev_process_try_up(struct dev_process *p, bool (*up)(void *arg), void *arg, double seconds)
{
    struct dev_group *g = p->group;
    ev_timer again;
    bool is_up = false;

    ev_timer_init(&again, on_again, 0.02, 0.02);
    ev_timer_start(g->loop, &again);
    for (double left = seconds; left > 0 && !p->ended && !g->broken && !(is_up = up(arg)); left -= 0.02)
        ev_run(g->loop, 0);
    ev_timer_stop(g->loop, &again);
    return is_up;
}

bool dev_process_wait_up(struct dev_process *p, bool (*up)(void *arg), void *arg, double seconds)
{
    struct dev_group *g = p->group;

    if (dev_process_try_up(p, up, arg, seconds))
        return true;
    if (!g->stopping) {
        if (!p->ended)
            fprintf(stderr, "%s: %s is not up within %.0f s\n", g->command, p->name, seconds);
        show_log(p);
    }
    return false;
}

void dev_process_end(struct dev_process *p, int number, double seconds)
{
    if (p->pid <= 0)
        return;
    p->told = true;
    kill(p->pid, number);
    if (wait_until(p, has_ended, seconds))
        return;
    fprintf(stderr, "%s: %s does not end; killed\n", p->group->command, p->name);
    kill(p->pid, SIGKILL);
    wait_until(p, has_ended, seconds);
}

void dev_process_stop(struct dev_process *p, int number, double seconds)
{
    dev_process_end(p, number, seconds);
    dev_process_env_clear(p);
    for (int i = 0; i < p->argc; i++)
        free(p->argv[i]);
    p->argc = 0;
}
