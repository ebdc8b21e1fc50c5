/* lib/store/live on a real Redis: scripts, leases, inboxes, states, and a Redis that goes, returns or falls silent. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/store/live_fixture.h"

#define DESCRIPTORS 256 /* this process has fewer */

struct in_order {
    int next, total;
    bool done;
};
struct numbered {
    struct in_order *all;
    int n;
};

static void on_numbered(void *arg, enum err err, const uint8_t *before, const uint8_t *after, size_t count)
{
    struct numbered *x = arg;
    (void)before;
    (void)after;
    assert_int_equal(err, ERR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(x->all->next++, x->n);
    x->all->done = x->all->next == x->all->total;
}

/* Many moves in the pipeline when Redis forgets the scripts: all answered, in order. */
static void a_pipeline_survives_a_script_flush(void **state)
{
    struct fixture *f = *state;
    struct in_order all = {.total = 5000};
    struct numbered *x = calloc(5000, sizeof *x);
    assert_non_null(x);
    cli(f, "SCRIPT FLUSH");
    for (int i = 0; i < 5000; i++) {
        x[i] = (struct numbered){&all, i};
        live_record(f->live, (struct live_place){1, 1, 1}, &(struct live_event){5, EVENT_SEND, 1}, 1, on_numbered,
                    &x[i]);
    }
    wait_for(f, &all.done);
    free(x);
}

static void worker_numbers_are_leased(void **state)
{
    struct fixture *f = *state;
    flush_all(f);
    const uint16_t a = 7, b = 8;
    live_worker_acquire(f->live, a, "a", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_worker_acquire(f->live, b, "b", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_worker_acquire(f->live, a, "c", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    live_worker_renew(f->live, a, "a", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_worker_renew(f->live, a, "b", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    live_worker_reclaim(f->live, a, "b", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    live_worker_renew(f->live, (uint16_t)(b + 1), "c", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
    live_worker_reclaim(f->live, (uint16_t)(b + 1), "c", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_worker_acquire(f->live, (uint16_t)(b + 1), "d", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
}

struct worker_list {
    bool done, alive[16], known[16];
};
static void on_workers(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    struct worker_list *l = arg;
    assert_int_equal(err, ERR_OK);
    for (size_t i = 0; i < count; i++) {
        l->known[workers[i].number] = true;
        l->alive[workers[i].number] = workers[i].alive;
    }
    l->done = true;
}

static void on_none(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    (void)workers;
    assert_int_equal(count, 0);
    on_done(arg, err);
}

static struct worker_list list_workers(struct fixture *f)
{
    struct worker_list l = {0};
    live_workers(f->live, on_workers, &l);
    wait_for(f, &l.done);
    return l;
}

/* It is not known of a Redis that is empty who is there, nor when it is filled while the answer is on its way. */
static void who_is_there_is_not_known_of_an_emptied_redis(void **state)
{
    static struct answer none;
    struct fixture *f = *state;
    for (int emptied = 0; emptied < 2; emptied++) { /* the second time its scripts are known */
        flush_all(f);
        live_workers_all(f->live, on_none, expect());
        assert_int_equal(get(f)->err, ERR_UNAVAILABLE);
        memset(&none, 0, sizeof none);
        live_workers_all(f->live, on_none, &none);
        live_generation_begin(f->live);
        live_generation_set(f->live, on_done, expect());
        assert_int_equal(get(f)->err, ERR_OK);
        wait_for(f, &none.done);
        assert_int_equal(none.err, ERR_UNAVAILABLE);
    }
    live_workers_all(f->live, on_none, expect());
    assert_int_equal(get(f)->err, ERR_OK);
}

/* Once somebody has been told that a worker is dead, it can't come back under its number: its slots are being reaped.
 */
static void the_dead_stay_dead(void **state)
{
    struct fixture *f = *state;
    flush_all(f);
    live_workers_all(f->live, on_none, expect());
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE); /* who is not listed may be somewhere all the same */
    live_generation_begin(f->live);
    live_generation_set(f->live, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_false(list_workers(f).known[1]);
    live_worker_acquire(f->live, 1, "a", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_worker_acquire(f->live, 2, "b", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_true(list_workers(f).alive[1]);
    cli(f, "DEL worker:1");
    struct worker_list l = list_workers(f);
    assert_true(l.known[1] && !l.alive[1] && l.alive[2]);
    live_worker_renew(f->live, 1, "a", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    live_worker_reclaim(f->live, 1, "a", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    assert_false(list_workers(f).alive[1]);
    live_worker_acquire(f->live, 1, "c", 60000, on_done, expect());
    assert_int_equal(get(f)->err, ERR_FENCED);
    live_worker_forget(f->live, 1, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    l = list_workers(f);
    assert_true(!l.known[1] && l.alive[2]);
    live_worker_release(f->live, 2, "b", on_done, expect());
    get(f);
    l = list_workers(f);
    assert_true(l.known[2] && !l.alive[2]);
}

static void on_take(void *arg, enum err err, enum live_class class, const struct slice *entries, size_t count)
{
    on_done(arg, err);
    answer.value = (int64_t) class;
    answer.count = count;
    answer.len = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(answer.bytes + answer.len, entries[i].data, entries[i].len);
        answer.len += entries[i].len;
    }
}

static void push(struct fixture *f, enum live_class class, const char *text, int64_t waiting)
{
    live_inbox_push(f->live, 9, class, (struct slice){(const uint8_t *)text, strlen(text)}, on_int, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_int_equal(answer.value, waiting);
}

static void take(struct fixture *f, int classes, enum live_class class, const char *text)
{
    do {
        live_inbox_take(f->live, 9, classes, 2, 10, on_take, expect());
        get(f);
    } while (answer.err == ERR_UNAVAILABLE); /* its connection is being made */
    assert_int_equal(answer.err, ERR_OK);
    assert_int_equal(answer.len, strlen(text));
    assert_memory_equal(answer.bytes, text, strlen(text));
    if (*text)
        assert_int_equal(answer.value, class);
}

static void inboxes_are_taken_by_class(void **state)
{
    struct fixture *f = *state;
    flush_all(f);
    push(f, LIVE_BULK, "z", 1);
    push(f, LIVE_NORMAL, "a", 1);
    push(f, LIVE_NORMAL, "b", 2);
    push(f, LIVE_NORMAL, "c", 3);
    push(f, LIVE_URGENT, "!", 1);
    take(f, 3, LIVE_URGENT, "!");
    take(f, 1, LIVE_URGENT, "");
    take(f, 3, LIVE_NORMAL, "ab");
    take(f, 2, LIVE_NORMAL, "c");
    take(f, 2, LIVE_NORMAL, "");
    take(f, 3, LIVE_BULK, "z");
    take(f, 3, LIVE_BULK, "");
}

/* A client waits in a take, as Redis says. */
static bool is_blocked(struct fixture *f)
{
    char line[256];
    snprintf(line, sizeof line, "redis-cli -s %s INFO clients | grep -q '^blocked_clients:1'",
             f->servers.redis_url + strlen("unix://"));
    return system(line) == 0;
}

static void list_sockets(bool *there)
{
    for (int fd = 0; fd < DESCRIPTORS; fd++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof peer;
        there[fd] = getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
    }
}

/* A take of `live` waits at Redis. Returns a descriptor of its connection, owned. */
static int take_and_wait(struct fixture *f, struct live *live)
{
    bool before[DESCRIPTORS], now[DESCRIPTORS];
    int found = -1;
    list_sockets(before);
    live_inbox_take(live, 9, 3, 2, 5000, on_take, expect());
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE); /* its connection is being made */
    while (live_taker(live) == 0)
        ev_run(f->loop, EVRUN_ONCE);
    live_inbox_take(live, 9, 3, 2, 5000, on_take, expect());
    while (!answer.done && !is_blocked(f))
        ev_run(f->loop, EVRUN_NOWAIT);
    list_sockets(now);
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        if (now[fd] && !before[fd])
            found = dup(fd);
    assert_true(found >= 0);
    return found;
}

/* Redis does not know that the connection is lost, and would give what comes next to the take that waits there. */
static void what_takes_no_more_is_given_nothing(void **state)
{
    struct fixture *f = *state;
    struct live *live = live_new(f->loop, f->servers.redis_url);
    flush_all(f);
    live_take_as(live, "another worker");
    int open_still = take_and_wait(f, live);
    shutdown(open_still, SHUT_RD);
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE);
    while (live_taker(live) != 2)
        ev_run(f->loop, EVRUN_ONCE);
    push(f, LIVE_NORMAL, "a", 1);
    live_inbox_take(live, 9, 3, 2, 10, on_take, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_int_equal(answer.len, 1);
    live_free(&live);
    close(open_still);
}

static void on_states(void *arg, enum err err, const struct slice *states, size_t count)
{
    on_done(arg, err);
    answer.count = count;
    for (size_t i = 0; i < count; i++) {
        struct state_string s;
        bool there = state_string_parse(&s, states[i]);
        assert_int_equal(there, i % 2 == 0);
        if (there)
            assert_int_equal(s.first, i);
    }
}

static void states_of_many_blocks(void **state)
{
    struct fixture *f = *state;
    uint32_t blocks[300];
    flush_all(f);
    for (unsigned i = 0; i < 300; i++) {
        struct buf b = {0};
        struct bitmap targets = {{0}};
        blocks[i] = i * 3;
        bitmap_set(&targets, i);
        state_string_put(&b, &targets, STATE_QUEUED);
        if (i % 2 == 0) {
            live_route(f->live, (struct live_place){1, blocks[i], 5}, 5, buf_slice(&b), on_route, expect());
            assert_int_equal(get(f)->err, ERR_OK);
        }
        buf_free(&b);
    }
    live_states(f->live, 1, 5, blocks, 300, on_states, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_int_equal(answer.count, 300);
}

static void on_one_string(void *arg, enum err err, const struct slice *states, size_t count)
{
    on_done(arg, err);
    assert_int_equal(count, 1);
    assert_true(!err && states[0].len <= sizeof answer.bytes);
    answer.len = states[0].len;
    memcpy(answer.bytes, states[0].data, states[0].len);
}

/* Of what waits to be tried again the router may not have heard: neither of the delivery, nor of its outcome. */
static void what_waits_is_let_go_by_who_knows_of_all_its_deliveries(void **state)
{
    static const uint8_t stands = STATE_HELD | 2 << 4;
    static const uint8_t comes[] = {STATE_QUEUED | 1 << 4, STATE_QUEUED | 2 << 4, STATE_SENT | 1 << 4,
                                    STATE_SENT | 2 << 4, STATE_SENT | 3 << 4};
    static const uint8_t after[] = {stands, STATE_QUEUED | 2 << 4, stands, stands, STATE_SENT | 3 << 4};
    struct fixture *f = *state;
    const struct live_place place = {1, 2, 5};
    const uint32_t block = 2;
    struct buf all = {0};
    struct bitmap targets = {{0}};
    flush_all(f);
    for (unsigned slot = 0; slot < sizeof comes; slot++)
        bitmap_set(&targets, slot);
    state_string_put(&all, &targets, stands);
    live_route(f->live, place, 5, buf_slice(&all), on_route, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    memcpy(buf_head(&all) + STATE_STRING_HEADER, comes, sizeof comes);
    live_route(f->live, place, 5, buf_slice(&all), on_route, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_states(f->live, 1, 5, &block, 1, on_one_string, expect());
    assert_int_equal(get(f)->len, buf_len(&all));
    assert_memory_equal(answer.bytes + STATE_STRING_HEADER, after, sizeof after);
    buf_free(&all);
}

/* Of the others nothing is said: what waits, waits on, though the router does not know. */
static void some_of_a_block_are_routed(void **state)
{
    struct fixture *f = *state;
    const struct live_place place = {1, 2, 5};
    const uint32_t block = 2;
    struct buf all = {0};
    struct bitmap targets = {{0}};
    flush_all(f);
    for (unsigned slot = 0; slot < 3; slot++)
        bitmap_set(&targets, slot);
    state_string_put(&all, &targets, STATE_HELD);
    uint8_t *states = buf_head(&all) + STATE_STRING_HEADER;
    live_route_some(f->live, place, 5, buf_slice(&all), on_route, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
    live_states(f->live, 1, 5, &block, 1, on_one_string, expect());
    assert_int_equal(get(f)->len, 0);
    states[2] = state_byte(STATE_QUEUED, 1);
    live_route(f->live, place, 5, buf_slice(&all), on_route, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    states[0] = state_byte(STATE_QUEUED, 0);
    states[1] = states[2] = STATE_NONE;
    live_route_some(f->live, place, 5, buf_slice(&all), on_route, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    states[1] = state_byte(STATE_HELD, 0);
    states[2] = state_byte(STATE_QUEUED, 1);
    live_states(f->live, 1, 5, &block, 1, on_one_string, expect());
    assert_int_equal(get(f)->len, buf_len(&all));
    assert_memory_equal(answer.bytes, buf_head(&all), buf_len(&all));
    buf_free(&all);
}

static void values_go_with_their_block(void **state)
{
    struct fixture *f = *state;
    const struct live_place place = {3, 7, 5};
    flush_all(f);
    live_get_values(f->live, place, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
    live_put_values(f->live, place, (struct slice){(const uint8_t *)"a\0b", 3}, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_get_values(f->live, place, on_bytes, expect());
    assert_int_equal(get(f)->len, 3);
    assert_memory_equal(answer.bytes, "a\0b", 3);
    live_close(f->live, (struct live_place){3, 8, 5}, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_get_values(f->live, place, on_bytes, expect());
    assert_int_equal(get(f)->len, 3);
    live_close(f->live, place, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_get_values(f->live, place, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
}

static void specs_come_and_go(void **state)
{
    struct fixture *f = *state;
    flush_all(f);
    live_get_spec(f->live, 5, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
    live_put_spec(f->live, 5, (struct slice){(const uint8_t *)"a\0b", 3}, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_get_spec(f->live, 5, on_bytes, expect());
    assert_int_equal(get(f)->len, 3);
    assert_memory_equal(answer.bytes, "a\0b", 3);
    live_cancel_confirm(f->live, 5, 77, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_drop_spec(f->live, 5, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_get_spec(f->live, 5, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
}

static void on_numbers(void *arg, enum err err, const uint16_t *numbers, size_t count)
{
    struct answer *a = arg;
    a->count = count;
    memcpy(a->bytes, numbers, count * sizeof *numbers);
    on_done(arg, err);
}

/* How many have confirmed it; *first is one of them. */
static size_t confirmed(struct fixture *f, uint64_t batch, uint64_t number, uint16_t *first)
{
    live_confirmed(f->live, batch, number, on_numbers, expect());
    const struct answer *a = get(f);
    assert_int_equal(a->err, ERR_OK);
    memcpy(first, a->bytes, sizeof *first);
    return a->count;
}

static void workers_confirm_growing_numbers(void **state)
{
    struct fixture *f = *state;
    uint16_t who;
    flush_all(f);
    live_confirm(f->live, 5, 1ull << 50, 7, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_confirm(f->live, 5, (1ull << 50) + 1, 9, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_int_equal(confirmed(f, 5, 1, &who), 2);
    assert_int_equal(confirmed(f, 5, (1ull << 50) + 1, &who), 1);
    assert_int_equal(who, 9);
    assert_int_equal(confirmed(f, 0, 1, &who), 0);
    live_drop_spec(f->live, 5, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    assert_int_equal(confirmed(f, 5, 1, &who), 0);
}

static void on_text(void *arg, struct slice text)
{
    if (text.len == 8 && memcmp(text.data, "closed 5", 8) == 0)
        *(bool *)arg = true;
}

/* Publishes until it is heard: the subscription is made in the background. */
static void hear(struct fixture *f, bool *heard)
{
    *heard = false;
    for (int i = 0; i < 500 && !*heard; i++) {
        live_publish(f->live, "closed 5");
        live_presence(f->live, 1, 1, on_bytes, expect());
        get(f);
        ev_run(f->loop, EVRUN_NOWAIT);
        if (!*heard)
            usleep(2000);
    }
    assert_true(*heard);
}

/* Redis goes: answered at once. It comes back empty: a new generation; the subscription is made again. */
static void redis_goes_and_returns(void **state)
{
    struct fixture *f = *state;
    static bool heard; /* outlives this test, as the subscription does */
    bool up = true;
    live_subscribe(f->live, on_text, &heard);
    hear(f, &heard);
    live_generation_get(f->live, on_int, expect());
    assert_int_equal(get(f)->value, 0);
    live_generation_set(f->live, on_done, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND);
    live_generation_begin(f->live);
    live_generation_get(f->live, on_int, expect());
    assert_int_equal(get(f)->value, 0);
    cli(f, "FLUSHALL");
    live_generation_set(f->live, on_done, expect());
    assert_int_equal(get(f)->err, ERR_NOT_FOUND); /* emptied while it was being filled */
    live_generation_begin(f->live);
    live_generation_get(f->live, on_int, expect());
    assert_int_equal(get(f)->value, 0);
    live_generation_set(f->live, on_done, expect());
    assert_int_equal(get(f)->err, ERR_OK);
    live_generation_get(f->live, on_int, expect());
    assert_int_equal(get(f)->value, 1);
    live_on_change(f->live, on_up, &up);
    servers_stop_redis(&f->servers);
    live_presence(f->live, 1, 1, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE);
    while (live_up(f->live))
        ev_run(f->loop, EVRUN_ONCE);
    live_presence(f->live, 1, 1, on_bytes, expect());
    assert_false(answer.done);
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE);
    servers_start_redis(&f->servers);
    wait_for(f, &up);
    live_on_change(f->live, NULL, NULL);
    live_generation_get(f->live, on_int, expect());
    assert_int_equal(get(f)->value, 0);
    hear(f, &heard);
}

/* A Redis that has stopped without closing anything counts as lost after a while; then it goes on. */
static void a_silent_redis_is_given_up(void **state)
{
    struct fixture *f = *state;
    bool up = true;
    live_on_change(f->live, on_up, &up);
    kill(f->servers.redis, SIGSTOP);
    live_presence(f->live, 1, 1, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_UNAVAILABLE);
    assert_false(live_up(f->live));
    kill(f->servers.redis, SIGCONT);
    wait_for(f, &up);
    live_on_change(f->live, NULL, NULL);
    live_presence(f->live, 1, 1, on_bytes, expect());
    assert_int_equal(get(f)->err, ERR_OK);
}

#define STALE_MOVES 400 /* of 4 KB: more than a socket takes */

static void on_fenced(void *arg)
{
    ++*(int *)arg;
}

static void on_stale(void *arg, enum err err)
{
    ++((int *)arg)[err == ERR_OK];
}

static int64_t specs_there(struct fixture *f, struct live *live)
{
    int64_t n = 0;
    for (uint64_t batch = 1; batch <= STALE_MOVES; batch++) {
        live_get_spec(live, batch, on_bytes, expect());
        n += get(f)->err == ERR_OK;
    }
    return n;
}

/* A leader is stopped with half of its moves unsent; its successor comes; then it goes on. */
static void a_leader_does_nothing_after_its_successor_came(void **state)
{
    struct fixture *f = *state;
    struct ev_loop *apart = ev_loop_new(0);
    uint8_t spec[4096] = {0};
    int fenced = 0, done[2] = {0};
    bool up = false;
    flush_all(f);
    struct live *stale = live_new(apart, f->servers.redis_url), *next = live_new(f->loop, f->servers.redis_url);
    live_lead(stale, 5, on_fenced, &fenced);
    while (!live_up(stale))
        ev_run(apart, EVRUN_ONCE);
    kill(f->servers.redis, SIGSTOP);
    for (uint64_t batch = 1; batch <= STALE_MOVES; batch++)
        live_put_spec(stale, batch, (struct slice){spec, sizeof spec}, on_stale, done);
    kill(f->servers.redis, SIGCONT);
    live_lead(next, 6, on_fenced, &fenced);
    live_on_change(next, on_up, &up);
    wait_for(f, &up);
    cli(f, "FLUSHALL"); /* the fence does not hang on a key */
    for (int64_t limit = clock_mono_us() + 20000000; !fenced && clock_mono_us() < limit;)
        ev_run(apart, EVRUN_ONCE);
    assert_int_equal(fenced, 1);
    assert_int_equal(done[0] + done[1], STALE_MOVES);
    assert_true(done[0] > 0);
    assert_int_equal(specs_there(f, next), 0);
    assert_false(live_up(stale));
    live_free(&stale);
    live_free(&next);
    ev_loop_destroy(apart);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipeline_survives_a_script_flush),
        cmocka_unit_test(worker_numbers_are_leased),
        cmocka_unit_test(who_is_there_is_not_known_of_an_emptied_redis),
        cmocka_unit_test(the_dead_stay_dead),
        cmocka_unit_test(inboxes_are_taken_by_class),
        cmocka_unit_test(what_takes_no_more_is_given_nothing),
        cmocka_unit_test(states_of_many_blocks),
        cmocka_unit_test(specs_come_and_go),
        cmocka_unit_test(what_waits_is_let_go_by_who_knows_of_all_its_deliveries),
        cmocka_unit_test(some_of_a_block_are_routed),
        cmocka_unit_test(values_go_with_their_block),
        cmocka_unit_test(a_leader_does_nothing_after_its_successor_came),
        cmocka_unit_test(workers_confirm_growing_numbers),
        cmocka_unit_test(redis_goes_and_returns),
        cmocka_unit_test(a_silent_redis_is_given_up),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
