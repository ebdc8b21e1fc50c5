/* Two streams that exchange and say good-bye, plain and over TLS, with the nth allocation failing, or the nth recv,
 * send, accept or connect failing or falling short. What passes (EINTR, EAGAIN, short counts, want of descriptors)
 * changes nothing; what does not closes both ends; neither costs a descriptor, a byte, or the processor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "tests/unit/inject.h"
#include "tests/unit/stream_world.h"

#define PLAIN_BYTES 200000
#define TLS_BYTES   40000
/* A handshake makes 3,000 allocations, contexts make still more: not each of them every time. */
#define HANDSHAKE_STEP 29
#define MAKING_STEP    101

struct kind {
    const char *name;
    bool tls, lean;
    struct world *world; /* while a run is on */
};

static char cert_path[64], key_path[64];

static bool passes(enum injection what)
{
    return what == INJECT_SHORT || what == INJECT_EINTR || what == INJECT_EAGAIN;
}

/* --- one run ------------------------------------------------------------------------------------------------------ */

static struct world *make_world(const struct kind *kind)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->loop = ev_loop_new(EVBACKEND_EPOLL);
    w->hub = stream_hub_new(w->loop);
    w->server.world = w->client.world = w;
    w->lean_server = w->lean_client = kind->lean;
    strcpy(w->cert, cert_path);
    strcpy(w->key, key_path);
    ev_timer_init(&w->watchdog, on_watchdog, 20, 0);
    ev_timer_start(w->loop, &w->watchdog);
    if (kind->tls)
        use_tls(w);
    listen_on(w, "127.0.0.1:0", 0);
    return w;
}

static void free_world(struct world *w)
{
    ev_timer_stop(w->loop, &w->watchdog);
    stream_listener_free(&w->listener);
    stream_hub_free(&w->hub);
    tls_free(&w->server_tls);
    tls_free(&w->client_tls);
    buf_free(&w->server.got);
    buf_free(&w->client.got);
    ev_loop_destroy(w->loop);
    free(w);
}

/* What comes is kept where nothing fails. */
static size_t take(struct stream *s, void *arg, const uint8_t *data, size_t len)
{
    inject_hold();
    buf_put(&((struct side *)arg)->got, data, len);
    inject_go_on();
    if (((struct side *)arg)->echo)
        stream_write(s, data, len);
    return len;
}

static const struct stream_handler taking = {
    .on_open = on_open, .on_data = take, .on_drain = on_drain, .on_close = on_close};

static void accept_one(struct stream *s, void *arg)
{
    on_accept(s, arg);
    stream_set_handler(s, &taking, &((struct world *)arg)->server);
}

static void converse(struct world *w, size_t bytes)
{
    w->server.echo = true;
    w->client.to_send = bytes;
    w->client.stream = stream_connect(w->hub, "127.0.0.1", (uint16_t)stream_listener_port(w->listener), w->client_tls,
                                      NULL, &taking, &w->client);
    if (!w->client.stream)
        return;
    while (!w->client.closed && buf_len(&w->client.got) < bytes)
        ev_run(w->loop, EVRUN_ONCE);
    if (!w->client.closed)
        stream_shutdown(w->client.stream);
    while (!w->client.closed || (w->accepted && !w->server.closed))
        ev_run(w->loop, EVRUN_ONCE);
}

static void once(void *arg, enum injection what)
{
    struct kind *kind = arg;
    size_t bytes = kind->tls ? TLS_BYTES : PLAIN_BYTES;
    inject_hold();
    size_t descriptors = inject_descriptors();
    struct world *w = make_world(kind);
    stream_listener_free(&w->listener);
    w->listener = stream_listen(w->hub, "127.0.0.1:0", w->server_tls, 0, accept_one, w);
    inject_go_on();
    converse(w, bytes);
    inject_hold();
    assert_true(buf_len(&w->client.got) <= buf_len(&w->server.got));
    assert_pattern(&w->server.got, buf_len(&w->server.got));
    assert_pattern(&w->client.got, buf_len(&w->client.got));
    if (!inject_happened() || passes(what)) {
        assert_int_equal(buf_len(&w->client.got), bytes);
        assert_int_equal(w->client.why, ERR_CLOSED);
        assert_int_equal(w->server.why, ERR_CLOSED);
    }
    free_world(w);
    assert_int_equal(inject_descriptors(), descriptors);
    inject_go_on();
}

/* A crash or a wrong end must be told apart from others: which kind, and what of. */
static void try(struct kind *kind, enum injection what, bool for_good, long step, long least)
{
    inject_arm(INJECT_NOTHING, 0, false);
    once(kind, INJECT_NOTHING);
    long n = inject_each(what, for_good, step, once, kind);
    print_message("%s, %s: %ld places\n", kind->name, inject_name(what), n);
    assert_true(n >= least);
}

static struct kind plain = {.name = "plain"}, openssl = {.name = "OpenSSL's records", .tls = true},
                   lean = {.name = "lean records", .tls = true, .lean = true};

/* --- tests -------------------------------------------------------------------------------------------------------- */

static void interrupted_and_short_calls_change_nothing(void **state)
{
    static const enum injection passing[] = {INJECT_SHORT, INJECT_EINTR, INJECT_EAGAIN};
    (void)state;
    for (int i = 0; i < 3; i++) {
        try(&plain, passing[i], false, 1, 10);
        try(&openssl, passing[i], false, 1, 10);
        try(&lean, passing[i], false, 1, 10);
    }
}

static void a_broken_connection_closes_both_ends(void **state)
{
    static const enum injection breaking[] = {INJECT_RESET, INJECT_PIPE, INJECT_ABORTED};
    (void)state;
    for (int i = 0; i < 3; i++) {
        try(&plain, breaking[i], false, 1, 1);
        try(&openssl, breaking[i], false, 1, 1);
        try(&lean, breaking[i], false, 1, 1);
    }
}

static void without_memory_both_ends_close(void **state)
{
    (void)state;
    try(&plain, INJECT_MEMORY, false, 1, 5);
    try(&openssl, INJECT_MEMORY, false, HANDSHAKE_STEP, 100);
    try(&lean, INJECT_MEMORY, false, HANDSHAKE_STEP, 100);
    try(&plain, INJECT_MEMORY, true, 1, 5);
}

/* A byte at a time, each way. */
static void bytes_come_one_by_one(void **state)
{
    (void)state;
    inject_arm(INJECT_SHORT, 0, true);
    once(&lean, INJECT_SHORT);
    assert_true(inject_disarm());
}

struct making {
    struct kind *kind;
};

static void make_once(void *arg, enum injection what)
{
    struct kind *kind = ((struct making *)arg)->kind;
    struct tls_options server = {.cert_file = cert_path, .key_file = key_path, .server = true, .lean = kind->lean};
    struct tls_options client = {.ca_file = cert_path, .server_name = "localhost", .lean = kind->lean};
    (void)what;
    inject_hold();
    struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL);
    size_t descriptors = inject_descriptors();
    inject_go_on();
    struct stream_hub *hub = stream_hub_new(loop);
    struct tls *one = tls_new(&server), *two = tls_new(&client);
    struct stream_listener *listener = hub ? stream_listen(hub, "127.0.0.1:0", one, 0, on_accept, NULL) : NULL;
    inject_hold();
    if (!inject_happened())
        assert_true(hub && one && two && listener);
    stream_listener_free(&listener);
    stream_hub_free(&hub);
    tls_free(&one);
    tls_free(&two);
    assert_int_equal(inject_descriptors(), descriptors);
    ev_loop_destroy(loop);
    inject_go_on();
}

static void what_cannot_be_made_is_not_half_made(void **state)
{
    (void)state;
    inject_arm(INJECT_NOTHING, 0, false);
    make_once(&(struct making){&lean}, INJECT_NOTHING);
    assert_true(inject_each(INJECT_MEMORY, false, MAKING_STEP, make_once, &(struct making){&lean}) > 100);
    assert_true(inject_each(INJECT_EMFILE, false, 1, make_once, &(struct making){&plain}) > 0);
}

static void on_time(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)w, (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

/* Out of descriptors for 0.35 s: accepting is tried some times, not thousands. */
static void want_of_descriptors_does_not_spin(void **state)
{
    (void)state;
    ev_timer timer;
    struct world *w = make_world(&plain);
    connect_client(w);
    inject_arm(INJECT_EMFILE, 0, true);
    ev_timer_init(&timer, on_time, 0.35, 0);
    ev_timer_start(w->loop, &timer);
    unsigned before = ev_iteration(w->loop);
    ev_run(w->loop, 0);
    unsigned turns = ev_iteration(w->loop) - before;
    assert_in_range(inject_times(), 1, 8);
    assert_in_range(turns, 1, 30);
    assert_int_equal(w->accepted, 0);
    inject_disarm();
    while (!w->accepted)
        ev_run(w->loop, EVRUN_ONCE);
    free_world(w);
}

int main(void)
{
    inject_init();
    log_init("test_inject_stream", (enum log_level)(LOG_ERROR + 1));
    make_path(cert_path);
    make_path(key_path);
    make_certificate(cert_path, key_path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interrupted_and_short_calls_change_nothing),
        cmocka_unit_test(a_broken_connection_closes_both_ends),
        cmocka_unit_test(without_memory_both_ends_close),
        cmocka_unit_test(bytes_come_one_by_one),
        cmocka_unit_test(what_cannot_be_made_is_not_half_made),
        cmocka_unit_test(want_of_descriptors_does_not_spin),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(cert_path);
    unlink(key_path);
    return failed;
}
