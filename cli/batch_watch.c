#include "cli/batch_watch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/progress.h"
#include "lib/base/clock.h"

/* A dispatcher that goes away is asked again, every so often, for so long. */
#define RETRY_S        0.25
#define RETRY_FOR_US   30000000
#define INTERVAL_MS    200
#define FIRST_TERMINAL 5

struct watch {
    struct session *s;
    struct watch_result *result;
    struct progress progress;
    bool begun, ended;
    int64_t last_heard_us;
    struct status status;
};

static void take(struct watch_result *r, const Muster__V1__Batch *b)
{
    r->id = b->id;
    r->devices = b->device_count;
    r->closed = b->state == MUSTER__V1__BATCH_STATE__BATCH_STATE_CLOSED;
    r->created_ms = show_time_ms(b->created_at);
    r->closed_ms = show_time_ms(b->closed_at);
    show_counts(b->progress, r->counts);
    show_progress_text(b->progress, r->counts_text, sizeof r->counts_text);
}

static uint32_t terminal(const struct watch_result *r)
{
    uint32_t done = 0;

    for (int i = FIRST_TERMINAL; i < SHOW_STATES; i++)
        done += r->counts[i];
    return done;
}

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct watch *w = arg;
    const Muster__V1__WatchBatchResponse *r = (const Muster__V1__WatchBatchResponse *)response;

    (void)call;
    if (!r->batch)
        return;
    take(w->result, r->batch);
    w->last_heard_us = clock_mono_us();
    if (w->s->common->json) {
        show_json(response);
        fflush(stdout);
        return;
    }
    if (!w->begun)
        progress_begin(&w->progress, terminal(w->result));
    w->begun = true;
    progress_show(&w->progress, terminal(w->result), w->result->devices, w->result->counts_text);
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct watch *w = arg;

    (void)call;
    w->status = *status;
    w->ended = true;
    ev_break(w->s->loop, EVBREAK_ONE);
}

static void watch_once(struct watch *w, int64_t batch)
{
    static const struct grpc_client_handler handler = {.on_message = on_message, .on_status = on_status};
    Muster__V1__WatchBatchRequest request = MUSTER__V1__WATCH_BATCH_REQUEST__INIT;
    struct grpc_client_call *call = grpc_client_start(w->s->client, "/muster.v1.CommandService/WatchBatch",
                                                      &muster__v1__watch_batch_response__descriptor, 0, &handler, w);

    w->ended = false;
    if (!call) {
        status_set(&w->status, STATUS_INTERNAL, NULL, "out of memory");
        return;
    }
    request.batch_id = batch;
    request.interval_ms = INTERVAL_MS;
    grpc_client_send(call, &request.base);
    grpc_client_end(call);
    while (!w->ended) {
        ev_run(w->s->loop, 0);
        if (session_stopped(w->s) && !w->ended)
            grpc_client_cancel(call);
    }
}

int batch_watch_run(struct session *s, int64_t batch, struct watch_result *result)
{
    struct watch w = {.s = s, .result = result, .last_heard_us = clock_mono_us()};

    *result = (struct watch_result){.id = batch};
    watch_once(&w, batch);
    while (!result->closed && !session_stopped(s) &&
           (w.status.code == STATUS_UNAVAILABLE || w.status.code == STATUS_OK) &&
           clock_mono_us() - w.last_heard_us < RETRY_FOR_US) {
        session_pause(s, RETRY_S);
        watch_once(&w, batch);
    }
    progress_end(&w.progress);
    if (!result->closed) {
        if (w.status.code == STATUS_OK)
            status_set(&w.status, STATUS_INTERNAL, NULL, "the watch ended before the batch was closed");
        if (!session_stopped(s))
            session_print_error(&w.status, s->common->json);
        return EXIT_RPC_FAIL;
    }
    return result->counts[FIRST_TERMINAL] == result->devices ? EXIT_DONE : EXIT_NOT_ALL;
}

void batch_watch_summary(const struct watch_result *r)
{
    double seconds = (double)(r->closed_ms - r->created_ms) / 1000;

    printf("batch %" PRId64 ": %" PRIu32 " devices, %s, %.2f s, %.0f commands/s\n", r->id, r->devices, r->counts_text,
           seconds, seconds > 0 ? r->devices / seconds : 0.0);
    fflush(stdout);
}

int batch_watch(struct invocation *inv)
{
    struct args a = {.positional = "BATCH", .min = 1, .max = 1};
    struct watch_result result;
    struct session s;

    args_parse(inv, &a);
    int64_t batch = args_number(inv, "batch", a.words.items[0]);
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = batch_watch_run(&s, batch, &result);
    if (status != EXIT_RPC_FAIL && !inv->common.json)
        batch_watch_summary(&result);
    session_close(&s);
    return status;
}
