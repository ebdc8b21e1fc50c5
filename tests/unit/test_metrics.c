/* Histograms, the text format, and the admin port over a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/metrics.h"
#include "lib/base/stream.h"

static void test_histogram_error_is_bounded(void **state)
{
    (void)state;
    static struct histogram h;
    for (int64_t v = 1; v < (1LL << 40); v = v + v / 7 + 1) {
        memset(&h, 0, sizeof h);
        histogram_add(&h, v);
        int64_t q = histogram_quantile(&h, 0.5);
        assert_true(q > v);
        assert_true(q <= v + v / 16 + 1);
    }
    memset(&h, 0, sizeof h);
    assert_int_equal(histogram_quantile(&h, 0.99), 0);
    histogram_add(&h, -5);
    histogram_add(&h, INT64_MAX);
    assert_int_equal(h.count, 2);
    assert_int_equal(histogram_quantile(&h, 1), INT64_MAX);
}

static void test_histogram_quantiles_and_merge(void **state)
{
    (void)state;
    static struct histogram a, b;
    for (int i = 1; i <= 1000; i++)
        histogram_add(i % 2 ? &a : &b, i);
    histogram_merge(&a, &b);
    assert_int_equal(a.count, 1000);
    assert_int_equal(a.sum, 500500);
    assert_in_range(histogram_quantile(&a, 0.5), 500, 535);
    assert_in_range(histogram_quantile(&a, 0.99), 990, 1056);
    assert_in_range(histogram_quantile(&a, 0), 1, 2);
}

static void count_scrape(void *arg)
{
    ++*(uint64_t *)arg;
}

static void test_text(void **state)
{
    (void)state;
    uint64_t sent = 3, failed = 4, open = 5;
    static struct histogram h;
    histogram_add(&h, 100);
    histogram_add(&h, 1000000);
    struct metrics *m = metrics_new("muster_test");
    metrics_add(m, METRIC_COUNTER, "commands_total", "state=\"sent\"", "Commands.", &sent);
    metrics_add(m, METRIC_GAUGE, "open", NULL, "Open things.", &open);
    metrics_add(m, METRIC_COUNTER, "commands_total", "state=\"failed\"", "Commands.", &failed);
    metrics_add_histogram(m, "wait_seconds", "Waits.", &h);
    metrics_on_scrape(m, count_scrape, &open);
    struct buf out = {0};
    metrics_write(m, &out);
    char *text = buf_take_str(&out);
    const char *start = "# HELP muster_test_commands_total Commands.\n"
                        "# TYPE muster_test_commands_total counter\n"
                        "muster_test_commands_total{state=\"sent\"} 3\n"
                        "muster_test_commands_total{state=\"failed\"} 4\n"
                        "# HELP muster_test_open Open things.\n"
                        "# TYPE muster_test_open gauge\n"
                        "muster_test_open 6\n"
                        "# HELP muster_test_wait_seconds Waits.\n"
                        "# TYPE muster_test_wait_seconds histogram\n"
                        "muster_test_wait_seconds_bucket{le=\"0.000016\"} 0\n";
    assert_int_equal(strncmp(text, start, strlen(start)), 0);
    assert_non_null(strstr(text, "_bucket{le=\"0.000096\"} 0\n"));
    assert_non_null(strstr(text, "_bucket{le=\"0.000112\"} 1\n"));
    assert_non_null(strstr(text, "_bucket{le=\"1.048576\"} 2\n"));
    assert_non_null(strstr(text, "_bucket{le=\"+Inf\"} 2\nmuster_test_wait_seconds_sum 1.000100\n"
                                 "muster_test_wait_seconds_count 2\n"));
    free(text);
    metrics_free(&m);
    assert_null(m);
}

/* One HTTP exchange: what came back until the server closed. */
struct exchange {
    struct ev_loop *loop;
    struct buf got;
};

static size_t on_data(struct stream *s, void *arg, const uint8_t *data, size_t len)
{
    (void)s;
    buf_put(&((struct exchange *)arg)->got, data, len);
    return len;
}

static void on_close(struct stream *s, void *arg, enum err why)
{
    (void)s, (void)why;
    ev_break(((struct exchange *)arg)->loop, EVBREAK_ALL);
}

static const struct stream_handler handler = {.on_data = on_data, .on_close = on_close};

static void assert_answer(struct stream_hub *hub, int port, const char *request, const char *status, const char *with)
{
    struct exchange x = {.loop = stream_hub_loop(hub)};
    struct stream *s = stream_connect(hub, "127.0.0.1", (uint16_t)port, NULL, NULL, &handler, &x);
    assert_non_null(s);
    stream_write(s, request, strlen(request));
    ev_run(x.loop, 0);
    char *text = buf_take_str(&x.got);
    if (strncmp(text, status, strlen(status)) != 0 || !strstr(text, with))
        fail_msg("%s answered %s", request, text);
    free(text);
}

static const char *ready(void *arg)
{
    return *(const char **)arg;
}

static void test_admin_port(void **state)
{
    (void)state;
    struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL);
    struct stream_hub *hub = stream_hub_new(loop);
    struct metrics *m = metrics_new("muster_test");
    uint64_t value = 42;
    const char *why = "redis is away";
    metrics_add(m, METRIC_GAUGE, "value", NULL, "A value.", &value);
    assert_int_equal(metrics_listen(m, loop, "127.0.0.1:nowhere", ready, &why), ERR_IO);
    assert_int_equal(metrics_listen(m, loop, "127.0.0.1:0", ready, &why), ERR_OK);
    assert_int_equal(metrics_listen(m, loop, "127.0.0.1:0", ready, &why), ERR_EXISTS);
    int port = metrics_port(m);
    assert_true(port > 0);
#define REQUEST(method, path) method " " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert_answer(hub, port, REQUEST("GET", "/livez"), "HTTP/1.1 200 ", "\r\n\r\nok\n");
    assert_answer(hub, port, REQUEST("GET", "/readyz"), "HTTP/1.1 503 ", "redis is away");
    why = NULL;
    assert_answer(hub, port, REQUEST("GET", "/readyz"), "HTTP/1.1 200 ", "ok");
    assert_answer(hub, port, REQUEST("GET", "/metrics"), "HTTP/1.1 200 ", "\nmuster_test_value 42\n");
    assert_answer(hub, port, REQUEST("HEAD", "/metrics"), "HTTP/1.1 200 ", "version=0.0.4");
    assert_answer(hub, port, REQUEST("GET", "/"), "HTTP/1.1 404 ", "/metrics");
    assert_answer(hub, port, REQUEST("DELETE", "/metrics"), "HTTP/1.1 405 ", "Allow: GET, HEAD");
    assert_answer(hub, port, "POST /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
                  "HTTP/1.1 405 ", "");
    assert_answer(hub, port, "nonsense\r\n\r\n", "", "");
    metrics_free(&m);
    stream_hub_free(&hub);
    ev_loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram_error_is_bounded),
        cmocka_unit_test(test_histogram_quantiles_and_merge),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_admin_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
