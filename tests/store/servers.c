#include "tests/store/servers.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BIN "/usr/lib/postgresql/15/bin/"

static void die(const char *what)
{
    fprintf(stderr, "servers: %s: %s\n", what, strerror(errno));
    abort();
}

/* initdb and postgres refuse to be root: then they run as the user `postgres`. */
static const struct passwd *unprivileged(void)
{
    if (geteuid() != 0)
        return NULL;
    const struct passwd *user = getpwnam("postgres");
    return user ? user : getpwnam("nobody");
}

static pid_t start(const struct passwd *user, const char *log, char *const argv[])
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid > 0)
        return pid;
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd >= 0) {
        dup2(fd, 1);
        dup2(fd, 2);
    }
    if (user && (setgroups(0, NULL) != 0 || setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0))
        _exit(126);
    execvp(argv[0], argv);
    _exit(127);
}

static void finish(pid_t pid, int expected)
{
    int status = 0;
    if (waitpid(pid, &status, 0) < 0 || (expected >= 0 && status != expected))
        die("a command failed");
}

/* Until somebody accepts connections there. */
static void wait_for_socket(const char *path, pid_t pid)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    for (int i = 0; i < 3000; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        int rc = connect(fd, (const struct sockaddr *)&a, sizeof a);
        close(fd);
        if (rc == 0)
            return;
        if (waitpid(pid, NULL, WNOHANG) == pid)
            break;
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    die(path);
}

void servers_init(struct servers *s)
{
    memset(s, 0, sizeof *s);
    snprintf(s->folder, sizeof s->folder, "/tmp/muster-store-XXXXXX");
    if (!mkdtemp(s->folder) || chmod(s->folder, 0755) != 0)
        die("mkdtemp");
    snprintf(s->redis_url, sizeof s->redis_url, "unix://%s/redis", s->folder);
    snprintf(s->postgres, sizeof s->postgres, "host=%s/pg user=muster dbname=postgres", s->folder);
}

void servers_start_redis(struct servers *s)
{
    char path[96], log[96];
    snprintf(path, sizeof path, "%s/redis", s->folder);
    snprintf(log, sizeof log, "%s/redis.log", s->folder);
    char *argv[] = {"redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", s->folder,
                    "--appendonly", "no",     NULL};
    s->redis = start(NULL, log, argv);
    wait_for_socket(path, s->redis);
}

void servers_stop_redis(struct servers *s)
{
    if (s->redis <= 0)
        return;
    kill(s->redis, SIGKILL);
    finish(s->redis, -1);
    s->redis = 0;
}

static void make_cluster(struct servers *s, const struct passwd *user, const char *folder, char *data, const char *log)
{
    char *argv[] = {BIN "initdb", "-D", data, "-U", "muster", "-A", "trust", "-E", "UTF8", "--no-sync", NULL};
    (void)s;
    if (mkdir(folder, 0755) != 0 || (user && chown(folder, user->pw_uid, user->pw_gid) != 0))
        die(folder);
    finish(start(user, log, argv), 0);
}

void servers_start_postgres(struct servers *s)
{
    char folder[96], data[112], log[112], socket_path[128];
    const struct passwd *user = unprivileged();
    snprintf(folder, sizeof folder, "%s/pg", s->folder);
    snprintf(data, sizeof data, "%s/data", folder);
    snprintf(log, sizeof log, "%s/log", folder);
    snprintf(socket_path, sizeof socket_path, "%s/.s.PGSQL.5432", folder);
    if (access(data, F_OK) != 0)
        make_cluster(s, user, folder, data, log);
    char *argv[] = {BIN "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off", NULL};
    s->postgres_pid = start(user, log, argv);
    wait_for_socket(socket_path, s->postgres_pid);
    /* It listens before it has recovered. */
    for (int i = 0; i < 3000 && PQping(s->postgres) != PQPING_OK; i++)
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    if (PQping(s->postgres) != PQPING_OK)
        die("postgres does not start");
}

void servers_stop_postgres(struct servers *s)
{
    if (s->postgres_pid <= 0)
        return;
    kill(s->postgres_pid, SIGQUIT);
    finish(s->postgres_pid, -1);
    s->postgres_pid = 0;
}

void servers_free(struct servers *s)
{
    char *argv[] = {"rm", "-rf", s->folder, NULL};
    servers_stop_redis(s);
    servers_stop_postgres(s);
    finish(start(NULL, "/dev/null", argv), 0);
}
