/* Many callers that each submit a command to one device, over gRPC: as fast as they are answered, or at a given rate.
 * Owns: struct load: connections, calls under way, the histogram. May call: lib/base, proto. Loop rule: non-blocking.
 *
 * At a given rate a call's latency counts from the moment it was due, not from when it was sent: what the server holds
 * up is charged to every caller that had to wait for it. Then call n goes over connection n, to device n, in turn: so
 * connections of several tenants each have devices of their own, if there are as many of each. */
#ifndef MUSTER_SUBMIT_LOAD_H
#define MUSTER_SUBMIT_LOAD_H

#include <ev.h>
#include <stdio.h>

#include "lib/base/metrics.h"
#include "lib/base/stream.h"

struct load;

struct load_options {
    const char *target;
    char *const *api_keys; /* connection n bears the n-th in turn */
    size_t api_key_count;
    struct tls *tls;               /* NULL: plain */
    int connections, streams;      /* streams: calls under way on each connection, when there is no rate */
    int64_t rate;                  /* calls a second, 0: as fast as they are answered */
    int64_t warmup_ms, measure_ms; /* calls that are due in the second span are counted */
    char *const *ids;              /* devices, each addressed in turn */
    size_t id_count;
    int priority; /* muster.v1.Priority */
    FILE *record; /* NULL, or where a line for each counted call goes: its batch, and since when it was due (Unix ms) */
};

struct load_result {
    uint64_t ok, failed; /* of the calls counted */
    double seconds;      /* from the first one due to the last one answered */
    struct histogram latency_us;
    int64_t max_us;
    char error[600]; /* of the first failure */
};

/* Begins at once; `done` comes from the loop when every call is answered. Borrows options until then. Returns owned, or
 * NULL without memory. */
struct load *load_new(struct stream_hub *hub, const struct load_options *options, void (*done)(void *arg), void *arg);
void load_free(struct load **load);
const struct load_result *load_result(const struct load *load);

#endif
