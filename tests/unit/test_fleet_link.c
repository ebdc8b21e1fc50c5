/* The fleet's link: a server's line before TLS is dropped, exactly that, and the handshake begins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench/fleet/link.h"

struct ends {
    struct link link;
    struct link_peer peer;
    struct sockaddr_in address;
    int listener, server;
};

static void connect_ends(struct ends *e)
{
    socklen_t len = sizeof e->address;

    *e = (struct ends){.address = {.sin_family = AF_INET}};
    e->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    e->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(e->listener, (struct sockaddr *)&e->address, len), 0);
    assert_int_equal(listen(e->listener, 1), 0);
    assert_int_equal(getsockname(e->listener, (struct sockaddr *)&e->address, &len), 0);
    e->peer = (struct link_peer){.epoll = epoll_create1(EPOLL_CLOEXEC),
                                 .address = (const struct sockaddr *)&e->address,
                                 .len = len,
                                 .tls = link_context(NULL, true, NULL),
                                 .greeting = true};
    assert_non_null(e->peer.tls);
    assert_int_equal(link_open(&e->link, &e->peer), ERR_OK);
    e->server = accept(e->listener, NULL, NULL);
    assert_true(e->server >= 0);
}

static void close_ends(struct ends *e)
{
    link_close(&e->link, true);
    SSL_CTX_free(e->peer.tls);
    close(e->peer.epoll);
    close(e->server);
    close(e->listener);
}

static void say(struct ends *e, const char *text, size_t len)
{
    assert_int_equal(send(e->server, text, len, 0), len);
}

static enum err go_on(struct ends *e)
{
    struct epoll_event ev;
    bool open;

    assert_int_equal(epoll_wait(e->peer.epoll, &ev, 1, 5000), 1);
    enum err got = link_progress(&e->link, &e->peer, &open);
    assert_false(open);
    return got;
}

static void test_greeting(void **state)
{
    (void)state;
    struct ends e;
    uint8_t hello[6];

    connect_ends(&e);
    assert_int_equal(go_on(&e), ERR_OK); /* connected */
    say(&e, "INFO {\"tls", 10);
    assert_int_equal(go_on(&e), ERR_OK);
    assert_true(e.link.greeting);
    assert_null(e.link.ssl);
    say(&e, "\":1}\r\n", 6);
    assert_int_equal(go_on(&e), ERR_OK);
    assert_false(e.link.greeting);
    /* A handshake record with a ClientHello (RFC 8446, 5.1 and 4). */
    assert_int_equal(recv(e.server, hello, sizeof hello, MSG_WAITALL), sizeof hello);
    assert_int_equal(hello[0], 22);
    assert_int_equal(hello[5], 1);
    close_ends(&e);
}

static void test_no_greeting(void **state)
{
    (void)state;
    static const char endless[5000] = {'x'};
    struct ends e;

    connect_ends(&e);
    assert_int_equal(go_on(&e), ERR_OK);
    shutdown(e.server, SHUT_WR);
    assert_int_equal(go_on(&e), ERR_CLOSED);
    close_ends(&e);

    connect_ends(&e);
    say(&e, endless, sizeof endless);
    enum err got = ERR_OK;
    while (got == ERR_OK)
        got = go_on(&e);
    assert_int_equal(got, ERR_PROTOCOL);
    close_ends(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_greeting), cmocka_unit_test(test_no_greeting)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
