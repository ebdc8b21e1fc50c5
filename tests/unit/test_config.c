/* Settings: precedence, every type, and each kind of refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/config.h"

struct settings {
    char *redis_url;
    int64_t count, wait, room;
    bool tls;
    struct config_option options[6];
};

static void settings_init(struct settings *s)
{
    *s = (struct settings){0};
    struct config_option options[6] = {
        {"redis-url", CONFIG_STRING, &s->redis_url, "redis://127.0.0.1", 0, 0, "where Redis is"},
        {"count", CONFIG_INT, &s->count, "7", -5, 100, "how many"},
        {"wait", CONFIG_DURATION, &s->wait, "250ms", 0, 86400000, "how long"},
        {"room", CONFIG_SIZE, &s->room, "64KiB", 0, 0, "how much"},
        {"tls", CONFIG_BOOL, &s->tls, "true", 0, 0, "whether to speak TLS"},
        {0},
    };
    memcpy(s->options, options, sizeof options);
}

static int load(struct settings *s, const char *const *args, int allow_args)
{
    char *argv[16] = {(char *)"muster-test"};
    int argc = 1;
    while (args && args[argc - 1]) {
        argv[argc] = (char *)args[argc - 1];
        argc++;
    }
    return config_load("muster-test", "Tests.", s->options, argc, argv, allow_args);
}

/* Runs config_load in a child; returns its exit status and what it printed to both outputs. */
static int load_in_child(const char *const *args, char *out, size_t size)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        struct settings s;
        settings_init(&s);
        load(&s, args, 0);
        config_free(s.options);
        fflush(NULL);
        _exit(0);
    }
    close(fds[1]);
    size_t n = 0;
    ssize_t got;
    while ((got = read(fds[0], out + n, size - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = 0;
    close(fds[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void assert_refused(const char *const *args, const char *with)
{
    char out[4096];
    assert_int_equal(load_in_child(args, out, sizeof out), 2);
    if (!strstr(out, with))
        fail_msg("\"%s\" does not say \"%s\"", out, with);
    assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
}

/* Returns the path of a new file with this content, in a static buffer. */
static const char *make_file(const char *content)
{
    static char path[64];
    strcpy(path, "/tmp/muster-config-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
    return path;
}

static void test_defaults(void **state)
{
    (void)state;
    struct settings s;
    settings_init(&s);
    assert_int_equal(load(&s, NULL, 0), 1);
    assert_string_equal(s.redis_url, "redis://127.0.0.1");
    assert_int_equal(s.count, 7);
    assert_int_equal(s.wait, 250);
    assert_int_equal(s.room, 65536);
    assert_true(s.tls);
    config_free(s.options);
    assert_null(s.redis_url);
}

static void test_precedence(void **state)
{
    (void)state;
    const char *path = make_file("redis_url = from-file\ncount = 8\nwait = 3s\n[other]\nunheard_of = 1\n"
                                 "[muster-test]\nroom = 1GiB\n");
    struct settings s;
    settings_init(&s);
    setenv("MUSTER_COUNT", "9", 1);
    setenv("MUSTER_WAIT", "5m", 1);
    const char *args[] = {"--config", path, "--wait=2h", "--no-tls", "rest", NULL};
    assert_int_equal(load(&s, args, 1), 5);
    assert_string_equal(s.redis_url, "from-file");
    assert_int_equal(s.count, 9);
    assert_int_equal(s.wait, 2 * 3600 * 1000);
    assert_int_equal(s.room, 1 << 30);
    assert_false(s.tls);
    config_free(s.options);
    unsetenv("MUSTER_COUNT");
    unsetenv("MUSTER_WAIT");

    setenv("MUSTER_CONFIG", path, 1);
    settings_init(&s);
    const char *more[] = {"--tls", "--count", "-5", "--", "--count", NULL};
    assert_int_equal(load(&s, more, 1), 5);
    assert_string_equal(s.redis_url, "from-file");
    assert_int_equal(s.count, -5);
    config_free(s.options);
    unsetenv("MUSTER_CONFIG");
    unlink(path);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_refused((const char *[]){"--colour", NULL}, "unknown flag --colour");
    assert_refused((const char *[]){"-x", NULL}, "unknown flag -x");
    assert_refused((const char *[]){"--no-count", NULL}, "unknown flag --no-count");
    assert_refused((const char *[]){"--count", NULL}, "--count needs a value");
    assert_refused((const char *[]){"--count", "ten", NULL}, "--count: \"ten\" is not a whole number");
    assert_refused((const char *[]){"--count=101", NULL}, "--count: \"101\" is not between -5 and 100");
    assert_refused((const char *[]){"--count=99999999999999999999", NULL}, "--count");
    assert_refused((const char *[]){"--count=", NULL}, "--count");
    assert_refused((const char *[]){"--wait=3", NULL}, "--wait: \"3\" is not a time");
    assert_refused((const char *[]){"--wait=9d", NULL}, "not between 0 and 86400000 ms");
    assert_refused((const char *[]){"--room=3kb", NULL}, "--room");
    assert_refused((const char *[]){"--room=9000000TiB9", NULL}, "--room");
    assert_refused((const char *[]){"--room=90000000TiB", NULL}, "--room");
    assert_refused((const char *[]){"--tls=maybe", NULL}, "--tls: \"maybe\" is not true or false");
    assert_refused((const char *[]){"stray", NULL}, "unexpected argument stray");
    assert_refused((const char *[]){"--config=/nonexistent/muster.ini", NULL}, "/nonexistent/muster.ini");

    setenv("MUSTER_COUNT", "x", 1);
    assert_refused(NULL, "MUSTER_COUNT: \"x\"");
    unsetenv("MUSTER_COUNT");

    const char *path = make_file("colour = red\n");
    assert_refused((const char *[]){"--config", path, NULL}, "unknown key colour");
    unlink(path);
    path = make_file("[muster-test]\ncount = red\n");
    assert_refused((const char *[]){"--config", path, NULL}, "key count: \"red\" is not a whole number");
    unlink(path);
    path = make_file("count = 1\nno equals sign\n");
    assert_refused((const char *[]){"--config", path, NULL}, "line 2");
    unlink(path);
}

static void test_help_and_version(void **state)
{
    (void)state;
    char out[4096];
    assert_int_equal(load_in_child((const char *[]){"--help", NULL}, out, sizeof out), 0);
    assert_non_null(strstr(out, "--redis-url TEXT"));
    assert_non_null(strstr(out, "how long (default 250ms) [MUSTER_WAIT]"));
    assert_int_equal(load_in_child((const char *[]){"--version", NULL}, out, sizeof out), 0);
    assert_non_null(strstr(out, "muster-test " MUSTER_VERSION "\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_help_and_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
