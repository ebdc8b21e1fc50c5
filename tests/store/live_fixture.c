/* What the tests of live stand on: a Redis of their own, waiting for answers, and the answers. */
#include "tests/store/live_fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/log.h"

/* --- waiting ------------------------------------------------------------------------------------------------------ */

static void on_limit(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    *(bool *)w->data = true;
}

/* Turns the loop until *flag, at most 20 s. */
void wait_for(struct fixture *f, const bool *flag)
{
    bool late = false;
    ev_timer limit;
    ev_timer_init(&limit, on_limit, 20., 0.);
    limit.data = &late;
    ev_timer_start(f->loop, &limit);
    while (!*flag && !late)
        ev_run(f->loop, EVRUN_ONCE);
    ev_timer_stop(f->loop, &limit);
    assert_true(*flag);
}

struct answer answer; /* too large for the stack */

struct answer *expect(void)
{
    memset(&answer, 0, offsetof(struct answer, bytes));
    answer.len = 0;
    return &answer;
}

struct answer *get(struct fixture *f)
{
    wait_for(f, &answer.done);
    return &answer;
}

void on_done(void *arg, enum err err)
{
    struct answer *a = arg;
    a->done = true;
    a->err = err;
}

void on_int(void *arg, enum err err, int64_t value)
{
    on_done(arg, err);
    answer.value = value;
}

void on_bytes(void *arg, enum err err, struct slice value)
{
    on_done(arg, err);
    assert_true(value.len <= sizeof answer.bytes);
    answer.len = value.len;
    if (value.len)
        memcpy(answer.bytes, value.data, value.len);
}

void on_route(void *arg, enum err err, const struct live_routed *routed, size_t count)
{
    on_done(arg, err);
    assert_true(count <= WORKERS);
    answer.count = count;
    if (count)
        memcpy(answer.routed, routed, count * sizeof *routed);
}

void on_record(void *arg, enum err err, const uint8_t *before, const uint8_t *after, size_t count)
{
    on_done(arg, err);
    assert_true(2 * count <= sizeof answer.bytes);
    answer.count = count;
    memcpy(answer.bytes, before, count);
    memcpy(answer.bytes + count, after, count);
}

void on_attach(void *arg, enum err err, const struct live_attached *attached, size_t count)
{
    on_done(arg, err);
    answer.count = count;
    struct live_pending *pending = answer.pending;
    for (size_t i = 0; i < count; i++) {
        answer.attached[i] = attached[i];
        answer.attached[i].pending = pending;
        if (attached[i].count)
            memcpy(pending, attached[i].pending, attached[i].count * sizeof *pending);
        pending += attached[i].count;
    }
}

/* Through redis-cli, as somebody else would. */
void cli(struct fixture *f, const char *command)
{
    char line[256];
    snprintf(line, sizeof line, "redis-cli -s %s %s > /dev/null", f->servers.redis_url + strlen("unix://"), command);
    assert_int_equal(system(line), 0);
}

void flush_all(struct fixture *f)
{
    cli(f, "FLUSHALL");
}

void on_up(void *arg, bool up)
{
    *(bool *)arg = up;
}

int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    bool up = false;
    assert_non_null(f);
    log_init("test_live", LOG_ERROR);
    servers_init(&f->servers);
    servers_start_redis(&f->servers);
    f->loop = ev_default_loop(0);
    f->live = live_new(f->loop, f->servers.redis_url);
    live_take_as(f->live, "a worker");
    assert_non_null(f->live);
    live_on_change(f->live, on_up, &up);
    wait_for(f, &up);
    live_on_change(f->live, NULL, NULL);
    *state = f;
    return 0;
}

int tear_down(void **state)
{
    struct fixture *f = *state;
    live_free(&f->live);
    servers_free(&f->servers);
    free(f);
    return 0;
}
