#include "lib/base/metrics.h"

#include <inttypes.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/address.h"
#include "lib/base/list.h"
#include "lib/base/log.h"

/* The admin port serves scrapers and probes, a handful at a time. */
#define ADMIN_CONNECTIONS_MAX 32
#define ADMIN_TIMEOUT_S       10
/* Exported histogram steps: four per power of two, 16 µs to 134 s. */
#define HISTOGRAM_FIRST_BUCKET (4 * 16)
#define HISTOGRAM_LAST_BUCKET  (27 * 16)
#define HISTOGRAM_STEP         4

struct metric {
    struct metric *next;
    enum metric_type type;
    const char *name, *labels, *help;
    const uint64_t *value;
    const struct histogram *histogram; /* or NULL */
};

struct metrics {
    const char *prefix;
    struct metric *first, **last;
    void (*on_scrape)(void *arg);
    void *on_scrape_arg;
    struct ev_loop *loop;
    struct MHD_Daemon *daemon;
    int port;
    ev_io io;
    ev_timer timer;
    metrics_ready_fn *ready;
    void *ready_arg;
};

struct metrics *metrics_new(const char *prefix)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->prefix = prefix;
    m->last = &m->first;
    return m;
}

void metrics_free(struct metrics **metrics)
{
    struct metrics *m = *metrics;
    if (!m)
        return;
    if (m->daemon) {
        ev_io_stop(m->loop, &m->io);
        ev_timer_stop(m->loop, &m->timer);
        MHD_stop_daemon(m->daemon);
    }
    while (m->first) {
        struct metric *next = m->first->next;
        free(m->first);
        m->first = next;
    }
    free(m);
    *metrics = NULL;
}

static void add(struct metrics *m, struct metric it)
{
    struct metric *kept = malloc(sizeof *kept);
    if (!kept) {
        log_error("metric_lost", "name=%s reason=no_memory", it.name);
        return;
    }
    *kept = it;
    *m->last = kept;
    m->last = &kept->next;
}

void metrics_add(struct metrics *m, enum metric_type type, const char *name, const char *labels, const char *help,
                 const uint64_t *value)
{
    add(m, (struct metric){.type = type, .name = name, .labels = labels, .help = help, .value = value});
}

void metrics_add_histogram(struct metrics *m, const char *name, const char *help, const struct histogram *h)
{
    add(m, (struct metric){.name = name, .help = help, .histogram = h});
}

void metrics_on_scrape(struct metrics *m, void (*fn)(void *arg), void *arg)
{
    m->on_scrape = fn;
    m->on_scrape_arg = arg;
}

/* --- text exposition format 0.0.4 --------------------------------------------------------------------------------- */

static void write_seconds(struct buf *out, uint64_t us)
{
    buf_printf(out, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
}

static void write_histogram(const struct metrics *m, const struct metric *it, struct buf *out)
{
    const struct histogram *h = it->histogram;
    uint64_t below = 0;
    unsigned b = 0;
    for (unsigned edge = HISTOGRAM_FIRST_BUCKET; edge <= HISTOGRAM_LAST_BUCKET; edge += HISTOGRAM_STEP) {
        for (; b < edge; b++)
            below += h->buckets[b];
        buf_printf(out, "%s_%s_bucket{le=\"", m->prefix, it->name);
        write_seconds(out, (uint64_t)(16 + edge % 16) << (edge / 16 - 4));
        buf_printf(out, "\"} %" PRIu64 "\n", below);
    }
    buf_printf(out, "%s_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", m->prefix, it->name, h->count);
    buf_printf(out, "%s_%s_sum ", m->prefix, it->name);
    write_seconds(out, h->sum);
    buf_printf(out, "\n%s_%s_count %" PRIu64 "\n", m->prefix, it->name, h->count);
}

static void write_family(const struct metrics *m, const struct metric *first, struct buf *out)
{
    static const char *const types[] = {[METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge"};
    buf_printf(out, "# HELP %s_%s %s\n# TYPE %s_%s %s\n", m->prefix, first->name, first->help, m->prefix, first->name,
               first->histogram ? "histogram" : types[first->type]);
    if (first->histogram) {
        write_histogram(m, first, out);
        return;
    }
    for (const struct metric *it = first; it; it = it->next) {
        if (strcmp(it->name, first->name) != 0 || !it->value)
            continue;
        buf_printf(out, "%s_%s", m->prefix, it->name);
        if (it->labels && *it->labels)
            buf_printf(out, "{%s}", it->labels);
        buf_printf(out, " %" PRIu64 "\n", *it->value);
    }
}

static bool is_first_of_family(const struct metrics *m, const struct metric *it)
{
    const struct metric *p = m->first;
    while (p != it && strcmp(p->name, it->name) != 0)
        p = p->next;
    return p == it;
}

void metrics_write(struct metrics *m, struct buf *out)
{
    if (m->on_scrape)
        m->on_scrape(m->on_scrape_arg);
    for (const struct metric *it = m->first; it; it = it->next) {
        if (is_first_of_family(m, it))
            write_family(m, it, out);
    }
}

/* --- the admin port --------------------------------------------------------------------------------------------------
 */

/* `text` is copied. */
static enum MHD_Result answer(struct MHD_Connection *c, unsigned code, const char *type, const void *text, size_t len)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(len, (void *)text, MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", type);
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, "Allow", "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(c, code, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result answer_text(struct MHD_Connection *c, unsigned code, const char *text)
{
    struct buf line = {0};
    buf_printf(&line, "%s\n", text);
    struct slice s = buf_slice(&line);
    enum MHD_Result result = line.failed ? MHD_NO : answer(c, code, "text/plain; charset=utf-8", s.data, s.len);
    buf_free(&line);
    return result;
}

static enum MHD_Result answer_metrics(struct metrics *m, struct MHD_Connection *c)
{
    struct buf out = {0};
    metrics_write(m, &out);
    struct slice s = buf_slice(&out);
    enum MHD_Result result =
        out.failed ? MHD_NO : answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", s.data, s.len);
    buf_free(&out);
    return result;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *body, size_t *body_size, void **state)
{
    (void)version, (void)body;
    struct metrics *m = arg;
    /* Called once with the header, then once with the end of the request: only then is the connection fit to be kept.
     */
    if (!*state) {
        *state = m;
        return MHD_YES;
    }
    if (*body_size > 0) {
        *body_size = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD");
    if (strcmp(url, "/metrics") == 0)
        return answer_metrics(m, c);
    if (strcmp(url, "/livez") == 0)
        return answer_text(c, MHD_HTTP_OK, "ok");
    if (strcmp(url, "/readyz") == 0) {
        const char *why = m->ready ? m->ready(m->ready_arg) : NULL;
        return answer_text(c, why ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK, why ? why : "ok");
    }
    return answer_text(c, MHD_HTTP_NOT_FOUND, "try /metrics, /livez or /readyz");
}

static void run_daemon(struct metrics *m)
{
    MHD_UNSIGNED_LONG_LONG ms;
    MHD_run(m->daemon);
    ev_timer_stop(m->loop, &m->timer);
    if (MHD_get_timeout(m->daemon, &ms) == MHD_YES) {
        ev_timer_set(&m->timer, (double)ms / 1000, 0);
        ev_timer_start(m->loop, &m->timer);
    }
}

static void on_ready(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop, (void)revents;
    run_daemon(container_of(w, struct metrics, io));
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)revents;
    run_daemon(container_of(w, struct metrics, timer));
}

enum err metrics_listen(struct metrics *m, struct ev_loop *loop, const char *address, metrics_ready_fn *ready,
                        void *arg)
{
    if (m->daemon)
        return ERR_EXISTS;
    int fd = address_listen(address);
    if (fd < 0)
        return ERR_IO;
    m->loop = loop;
    m->ready = ready;
    m->ready_arg = arg;
    m->port = address_port_of(fd);
    m->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, m, MHD_OPTION_LISTEN_SOCKET, fd,
                                 MHD_OPTION_CONNECTION_LIMIT, (unsigned)ADMIN_CONNECTIONS_MAX,
                                 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)ADMIN_TIMEOUT_S, MHD_OPTION_END);
    const union MHD_DaemonInfo *info = m->daemon ? MHD_get_daemon_info(m->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info) {
        log_error("admin_failed", "address=%s reason=\"the HTTP server did not start\"", log_quote(address));
        if (m->daemon)
            MHD_stop_daemon(m->daemon);
        else
            close(fd);
        m->daemon = NULL;
        return ERR_IO;
    }
    ev_io_init(&m->io, on_ready, info->epoll_fd, EV_READ);
    ev_timer_init(&m->timer, on_timer, 0, 0);
    ev_io_start(loop, &m->io);
    return ERR_OK;
}

int metrics_port(const struct metrics *m)
{
    return m->port;
}
