/* Prometheus metrics, liveness and readiness on a plain admin port (GET /metrics, /livez, /readyz).
 * Owns: struct metrics, the admin HTTP server (libmicrohttpd). May call: lib/base. Loop rule: served from the loop,
 * never blocks. */
#ifndef MUSTER_BASE_METRICS_H
#define MUSTER_BASE_METRICS_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct metrics;

/* A counter or gauge is a plain uint64_t in its module's struct; registering makes it visible. */
enum metric_type { METRIC_COUNTER, METRIC_GAUGE };

/* Latency histogram: HDR-like, 64 powers of two with 16 steps each (at most 6.25 % error), in microseconds. */
struct histogram {
    uint64_t count, sum;
    uint32_t buckets[64 * 16];
};
void histogram_add(struct histogram *h, int64_t us);
/* Value in microseconds below which the share `q` (0…1) of the samples lies; 0 when empty. */
int64_t histogram_quantile(const struct histogram *h, double q);
/* Adds the samples of `from` to `into`. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/* Returns owned, or NULL without memory. `prefix`, such as "muster_worker", is borrowed. */
struct metrics *metrics_new(const char *prefix);
void metrics_free(struct metrics **m);
/* Shows *value as <prefix>_<name>{<labels>}; names and help are borrowed; labels like `state="sent"` or NULL. */
void metrics_add(struct metrics *m, enum metric_type type, const char *name, const char *labels, const char *help,
                 const uint64_t *value);
/* Shows `h` as a Prometheus histogram in seconds <prefix>_<name>. Borrows. */
void metrics_add_histogram(struct metrics *m, const char *name, const char *help, const struct histogram *h);
/* Called before each scrape so that gauges can be computed. */
void metrics_on_scrape(struct metrics *m, void (*fn)(void *arg), void *arg);
/* Writes all in the text exposition format 0.0.4. */
void metrics_write(struct metrics *m, struct buf *out);

/* Answers /readyz: NULL when ready, else why not in a few words. */
typedef const char *metrics_ready_fn(void *arg);
/* Listens on `address` ("127.0.0.1:9100", port 0 for any free one). metrics_port tells the port. */
MUST_CHECK enum err metrics_listen(struct metrics *m, struct ev_loop *loop, const char *address,
                                   metrics_ready_fn *ready, void *arg);
int metrics_port(const struct metrics *m);

#endif
