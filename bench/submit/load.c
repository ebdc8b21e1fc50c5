#include "bench/submit/load.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/grpc_client.h"
#include "lib/base/list.h"
#include "muster/v1/command_service.pb-c.h"

#define SUBMIT_PATH   "/muster.v1.CommandService/SubmitBatch"
#define CALL_LIMIT_MS 60000
#define TICK_S        0.0005 /* between looks at what is due: far below what is measured */

struct load {
    const struct load_options *options;
    struct ev_loop *loop;
    struct grpc_client **clients;
    ev_timer tick;
    int64_t began_us, count_us, end_us; /* calls due from count_us to end_us count */
    uint64_t started, under_way;
    int64_t last_us, wall_us; /* wall_us: of the clock when clock_mono_us is 0 */
    uint32_t run;             /* part of every request id: no two runs share one */
    struct load_result result;
    void (*done)(void *arg);
    void *arg;
};

/* A call under way. */
struct shot {
    struct load *load;
    int64_t due_us;
    unsigned client;
};

static void start(struct load *l, unsigned client, int64_t due_us);

static bool counts(const struct shot *shot)
{
    return shot->due_us >= shot->load->count_us && shot->due_us < shot->load->end_us;
}

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    const struct shot *shot = arg;
    FILE *record = shot->load->options->record;
    const Muster__V1__Batch *batch = ((const Muster__V1__SubmitBatchResponse *)response)->batch;
    (void)call;
    if (record && batch && counts(shot))
        fprintf(record, "%" PRIi64 " %.3f\n", (int64_t)batch->id, (double)(shot->load->wall_us + shot->due_us) / 1e3);
}

static void count(struct load *l, const struct shot *shot, const struct status *status, int64_t now)
{
    struct load_result *r = &l->result;
    if (status->code != STATUS_OK) {
        if (!r->failed++)
            snprintf(r->error, sizeof r->error, "%s: %s", status_code_name(status->code), status->message);
        return;
    }
    r->ok++;
    histogram_add(&r->latency_us, now - shot->due_us);
    if (now - shot->due_us > r->max_us)
        r->max_us = now - shot->due_us;
    l->last_us = now;
}

static void end_if_over(struct load *l, int64_t now)
{
    if (l->under_way || now < l->end_us)
        return;
    ev_timer_stop(l->loop, &l->tick);
    l->result.seconds = (double)(l->last_us - l->count_us) / 1e6;
    l->done(l->arg);
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct shot shot = *(struct shot *)arg;
    struct load *l = shot.load;
    int64_t now = clock_mono_us();
    (void)call;
    free(arg);
    l->under_way--;
    if (counts(&shot))
        count(l, &shot, status, now);
    if (!l->options->rate && now < l->end_us)
        start(l, shot.client, now);
    else
        end_if_over(l, now);
}

static const struct grpc_client_handler handler = {on_message, on_status, NULL};

static void start(struct load *l, unsigned client, int64_t due_us)
{
    Muster__V1__SubmitBatchRequest request = MUSTER__V1__SUBMIT_BATCH_REQUEST__INIT;
    Muster__V1__Command command = MUSTER__V1__COMMAND__INIT;
    Muster__V1__LockCommand lock = MUSTER__V1__LOCK_COMMAND__INIT;
    Muster__V1__Target target = MUSTER__V1__TARGET__INIT;
    Muster__V1__DeviceIds devices = MUSTER__V1__DEVICE_IDS__INIT;
    char id[40];
    char *device = l->options->ids[l->started % l->options->id_count];

    snprintf(id, sizeof id, "load-%08" PRIx32 "-%" PRIu64, l->run, l->started);
    lock.message = (char *)(uintptr_t) "Please return me";
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
    command.lock = &lock;
    devices.n_ids = 1;
    devices.ids = &device;
    target.kind_case = MUSTER__V1__TARGET__KIND_DEVICES;
    target.devices = &devices;
    request.request_id = id;
    request.command = &command;
    request.target = &target;
    request.priority = (Muster__V1__Priority)l->options->priority;
    struct shot *shot = malloc(sizeof *shot);
    if (!shot)
        abort();
    *shot = (struct shot){l, due_us, client};
    l->started++;
    l->under_way++;
    struct grpc_client_call *call = grpc_client_start(
        l->clients[client], SUBMIT_PATH, &muster__v1__submit_batch_response__descriptor, CALL_LIMIT_MS, &handler, shot);
    if (!call)
        abort();
    grpc_client_send(call, &request.base);
    grpc_client_end(call);
}

/* Starts what is due by now, each with the moment it was due. */
static void tick(struct ev_loop *loop, ev_timer *t, int events)
{
    struct load *l = container_of(t, struct load, tick);
    int64_t now = clock_mono_us(), due;
    (void)loop, (void)events;
    while ((due = l->began_us + (int64_t)(l->started * 1000000 / (uint64_t)l->options->rate)) <= now && due < l->end_us)
        start(l, (unsigned)(l->started % (uint64_t)l->options->connections), due);
    end_if_over(l, now);
}

struct load *load_new(struct stream_hub *hub, const struct load_options *options, void (*done)(void *arg), void *arg)
{
    struct load *l = calloc(1, sizeof *l);
    struct timespec wall;
    char bearer[256];
    if (!l || !(l->clients = calloc((size_t)options->connections, sizeof(struct grpc_client *))))
        goto fail;
    l->options = options;
    l->loop = stream_hub_loop(hub);
    l->done = done;
    l->arg = arg;
    l->run = randombytes_random();
    l->began_us = clock_mono_us();
    clock_gettime(CLOCK_REALTIME, &wall);
    l->wall_us = (int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000 - l->began_us;
    l->count_us = l->began_us + options->warmup_ms * 1000;
    l->end_us = l->count_us + options->measure_ms * 1000;
    for (int i = 0; i < options->connections; i++) {
        snprintf(bearer, sizeof bearer, "Bearer %s", options->api_keys[(size_t)i % options->api_key_count]);
        if (!(l->clients[i] = grpc_client_new(hub, options->target, options->tls)))
            goto fail;
        grpc_client_metadata(l->clients[i], "authorization", bearer);
    }
    ev_timer_init(&l->tick, tick, TICK_S, TICK_S);
    if (options->rate)
        ev_timer_start(l->loop, &l->tick);
    for (int i = 0; !options->rate && i < options->connections * options->streams; i++)
        start(l, (unsigned)(i % options->connections), l->began_us);
    return l;
fail:
    load_free(&l);
    return NULL;
}

void load_free(struct load **load)
{
    struct load *l = *load;
    if (!l)
        return;
    *load = NULL;
    for (int i = 0; l->clients && i < l->options->connections; i++)
        grpc_client_free(&l->clients[i]);
    free(l->clients);
    free(l);
}

const struct load_result *load_result(const struct load *load)
{
    return &load->result;
}
