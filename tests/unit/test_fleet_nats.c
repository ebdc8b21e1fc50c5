/* The fleet's NATS: what it writes is what the protocol says, what it reads it reads at every cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "bench/fleet/nats.h"

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static void assert_text(struct slice got, const char *wanted)
{
    assert_int_equal(got.len, strlen(wanted));
    assert_memory_equal(got.data, wanted, got.len);
}

static void test_writes(void **state)
{
    (void)state;
    struct buf out = {0};

    nats_put_subscribe(&out, "devices.d1.commands", 7);
    nats_put_publish(&out, text("a.b"), text("_INBOX.x.1"), text("hello"));
    nats_put_publish(&out, text("a.b"), text(""), text(""));
    nats_put_ping(&out);
    nats_put_pong(&out);
    assert_text(buf_slice(&out), "SUB devices.d1.commands 7\r\nPUB a.b _INBOX.x.1 5\r\nhello\r\nPUB a.b 0\r\n\r\n"
                                 "PING\r\nPONG\r\n");
    buf_reset(&out);
    nats_put_connect(&out, "someone");
    assert_memory_equal(buf_head(&out), "CONNECT {\"verbose\":false,", 25);
    assert_memory_equal(buf_head(&out) + buf_len(&out) - 3, "}\r\n", 3);
    buf_free(&out);
}

static const char stream[] = "INFO {\"server_id\":\"x\",\"max_payload\":1048576} \r\n"
                             "MSG devices.d1.commands 1 _INBOX.x.1 5\r\nhe\r\no\r\n"
                             "MSG  a\t1  0\r\n\r\n"
                             "PING\r\n+OK\r\nPONG\r\n-ERR 'Authorization Violation'\r\n";

/* The whole stream, read from `in` as far as it goes; how many operations. */
static size_t read_all(struct slice *in, struct nats_message *list)
{
    size_t n = 0;

    while (nats_read(in, &list[n]) == NATS_DONE)
        n++;
    return n;
}

static void test_reads(void **state)
{
    (void)state;
    static const enum nats_op wanted[] = {NATS_INFO, NATS_MSG, NATS_MSG, NATS_PING, NATS_OK, NATS_PONG, NATS_ERR};
    struct nats_message list[8];
    struct slice in = text(stream);

    assert_int_equal(read_all(&in, list), 7);
    assert_int_equal(in.len, 0);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(list[i].op, wanted[i]);
    assert_text(list[1].subject, "devices.d1.commands");
    assert_text(list[1].reply, "_INBOX.x.1");
    assert_text(list[1].payload, "he\r\no");
    assert_text(list[2].subject, "a");
    assert_int_equal(list[2].reply.len, 0);
    assert_int_equal(list[2].payload.len, 0);
    assert_text(list[6].text, " 'Authorization Violation'");
}

/* Cut anywhere: what is whole comes out, the rest waits where it is. */
static void test_every_cut(void **state)
{
    (void)state;
    struct nats_message list[8];

    for (size_t cut = 0; cut <= strlen(stream); cut++) {
        struct slice first = {(const uint8_t *)stream, cut};
        size_t n = read_all(&first, list);
        assert_int_not_equal(nats_read(&first, &list[n]), NATS_BAD);
        struct slice rest = text(stream + cut - first.len);
        assert_int_equal(n + read_all(&rest, list), 7);
        assert_int_equal(rest.len, 0);
    }
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "HELLO\r\n",
        "\r\n",
        "\n",
        "PING\n",
        "MSG\r\n",
        "MSG a 1\r\n",
        "MSG a 1 b 2 c\r\nxx\r\n",
        "MSG a 1 x\r\n\r\n",
        "MSG a 1 -1\r\n\r\n",
        "MSG a 1 65537\r\n",
        "MSG a 1 99999999999999999999999999\r\n",
        "MSG a 1 2\r\nabc\r\n",
    };
    struct nats_message m;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct slice in = text(bad[i]);
        assert_int_equal(nats_read(&in, &m), NATS_BAD);
        assert_ptr_equal(in.data, bad[i]);
    }
}

static void test_line_without_end(void **state)
{
    (void)state;
    static uint8_t long_line[NATS_LINE_MAX];
    struct nats_message m;

    memset(long_line, 'x', sizeof long_line);
    struct slice in = {long_line, sizeof long_line - 1};
    assert_int_equal(nats_read(&in, &m), NATS_MORE);
    in = (struct slice){long_line, sizeof long_line};
    assert_int_equal(nats_read(&in, &m), NATS_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes),           cmocka_unit_test(test_reads),
        cmocka_unit_test(test_every_cut),        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_line_without_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
