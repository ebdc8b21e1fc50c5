#include "cli/chaos/load.h"

#include <ev.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chaos/load_batch.h"
#include "cli/chaos/schedule.h"
#include "cli/session.h"
#include "lib/base/clock.h"

#define DISPATCHERS_MAX 8
/* One call's time: a dispatcher that is stopped or cut off is not waited for. */
#define CALL_MS 4000
/* Between two tries that failed at once. */
#define RETRY_S 0.1
/* Between two looks at the cancels under way. */
#define LOOK_S 0.05

#define CANCELS_MAX 64

/* A cancel on its way. */
struct cancel {
    char request[48];
    int64_t batch;
    int64_t due_ms; /* when to ask for it */
    bool asked;
};

struct load {
    struct session sessions[DISPATCHERS_MAX];
    struct common common[DISPATCHERS_MAX];
    int count, at; /* sessions, the one used now */
    struct load_tenant tenant;
    struct load_batch batch;
    struct cancel cancels[CANCELS_MAX];
    int cancel_count;
    FILE *journal;
    uint64_t random, submitted;
    unsigned round;
    double gap_s;
    ev_signal on_term;
    bool stop;
};

static void on_term(struct ev_loop *loop, ev_signal *w, int events)
{
    struct load *l = w->data;

    (void)loop;
    (void)events;
    l->stop = true; /* the call under way goes on */
}

static void say(struct load *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct load *l, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(l->journal, fmt, ap);
    va_end(ap);
    if (fflush(l->journal) != 0)
        abort(); /* a journal with holes would accuse the innocent */
}

/* Whether the same call may go well another time. */
static bool may_repeat(enum status_code code)
{
    switch (code) {
    case STATUS_UNAVAILABLE:
    case STATUS_DEADLINE_EXCEEDED:
    case STATUS_CANCELLED:
    case STATUS_ABORTED:
    case STATUS_RESOURCE_EXHAUSTED:
    case STATUS_INTERNAL: /* a connection that broke within an answer */
    case STATUS_UNKNOWN:
        return true;
    default:
        return false;
    }
}

/* Calls one dispatcher after another until one answers or refuses for good. Returns owned, or NULL with *status. */
static ProtobufCMessage *call(struct load *l, const char *method, const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *response, struct status *status)
{
    for (;;) {
        struct session *s = &l->sessions[l->at];
        *status = (struct status){0};
        ProtobufCMessage *answer = session_try(s, method, request, response, status);
        if (answer || !may_repeat(status->code))
            return answer;
        fprintf(stderr, "%s at %s: %s %s\n", method, s->common->target, status_code_name(status->code),
                status->message);
        l->at = (l->at + 1) % l->count;
        session_pause(&l->sessions[l->at], RETRY_S);
    }
}

static int64_t timestamp_ms(const Google__Protobuf__Timestamp *t)
{
    return t ? t->seconds * 1000 + t->nanos / 1000000 : 0;
}

/* Another tenant's batch must not be there for us. */
static void pry(struct load *l, int64_t near)
{
    Muster__V1__GetBatchRequest request = MUSTER__V1__GET_BATCH_REQUEST__INIT;
    struct status status;
    char own[24];

    request.batch_id = near > 3 ? near - 3 + (int64_t)(schedule_random(&l->random) % 6) : near;
    Muster__V1__GetBatchResponse *answer = (Muster__V1__GetBatchResponse *)call(
        l, "CommandService/GetBatch", &request.base, &muster__v1__get_batch_response__descriptor, &status);
    snprintf(own, sizeof own, "t%d-", l->tenant.number);
    if (answer && answer->batch && strncmp(answer->batch->request_id, own, strlen(own)) != 0)
        say(l, "F %s %" PRId64 "\n", l->batch.request_id, request.batch_id);
    session_free_message((ProtobufCMessage *)answer);
}

static void remember_cancel(struct load *l, int64_t batch)
{
    const struct load_batch *b = &l->batch;

    if (!b->to_cancel || l->cancel_count == CANCELS_MAX)
        return;
    struct cancel *c = &l->cancels[l->cancel_count++];
    *c = (struct cancel){.batch = batch, .due_ms = clock_wall_ms() + b->cancel_ms};
    snprintf(c->request, sizeof c->request, "%s", b->request_id);
}

/* Submits the batch until there is an answer. */
static int64_t submit_once(struct load *l)
{
    struct load_batch *b = &l->batch;
    struct status status;
    Muster__V1__SubmitBatchResponse *answer = (Muster__V1__SubmitBatchResponse *)call(
        l, "CommandService/SubmitBatch", &b->request.base, &muster__v1__submit_batch_response__descriptor, &status);
    int64_t batch = answer && answer->batch ? answer->batch->id : 0;

    if (batch)
        say(l, "A %s %" PRId64 " %" PRIu32 "\n", b->request_id, batch, answer->batch->device_count);
    else
        say(l, "R %s %s\n", b->request_id, status_code_name(status.code));
    session_free_message((ProtobufCMessage *)answer);
    return batch;
}

static void submit(struct load *l)
{
    struct load_batch *b = &l->batch;

    load_batch_draw(b, &l->tenant, l->round, ++l->submitted, &l->random, clock_wall_ms());
    say(l, "S %s %" PRId64 "\n", b->request_id, b->expires_ms);
    int64_t batch = submit_once(l);
    if (!batch)
        return;
    unsigned more = (unsigned)(schedule_random(&l->random) % 16);
    if (more == 0)
        submit_once(l); /* as a caller would who lost the answer: the same batch again */
    else if (more == 1)
        pry(l, batch);
    remember_cancel(l, batch);
}

/* Asks for the cancel, or whether it is confirmed. True: there is no more to know. */
static bool pursue(struct load *l, struct cancel *c)
{
    Muster__V1__CancelBatchRequest cancel = MUSTER__V1__CANCEL_BATCH_REQUEST__INIT;
    Muster__V1__GetBatchRequest get = MUSTER__V1__GET_BATCH_REQUEST__INIT;
    Muster__V1__Batch *batch = NULL;
    ProtobufCMessage *answer;
    struct status status;

    cancel.batch_id = get.batch_id = c->batch;
    if (!c->asked) {
        say(l, "C %s\n", c->request);
        answer = call(l, "CommandService/CancelBatch", &cancel.base, &muster__v1__cancel_batch_response__descriptor,
                      &status);
        batch = answer ? ((Muster__V1__CancelBatchResponse *)answer)->batch : NULL;
        c->asked = true;
    } else {
        answer = call(l, "CommandService/GetBatch", &get.base, &muster__v1__get_batch_response__descriptor, &status);
        batch = answer ? ((Muster__V1__GetBatchResponse *)answer)->batch : NULL;
    }
    bool confirmed = batch && timestamp_ms(batch->canceled_at) != 0;
    bool over = !batch || confirmed || batch->state == MUSTER__V1__BATCH_STATE__BATCH_STATE_CLOSED;
    /* This clock, not the dispatcher's: it is the one that the devices go by. */
    if (confirmed)
        say(l, "K %s %" PRId64 "\n", c->request, clock_wall_ms());
    session_free_message(answer);
    return over;
}

static void pursue_cancels(struct load *l)
{
    int64_t now = clock_wall_ms();

    for (int i = 0; i < l->cancel_count;) {
        if ((l->cancels[i].due_ms <= now || l->stop) && pursue(l, &l->cancels[i]))
            l->cancels[i] = l->cancels[--l->cancel_count];
        else
            i++;
    }
}

static void run(struct load *l)
{
    int64_t next_ms = clock_wall_ms();

    while (!l->stop) {
        int64_t now = clock_wall_ms();
        if (now >= next_ms) {
            submit(l);
            /* From a half to one and a half of the mean. */
            next_ms = now + (int64_t)(l->gap_s * (500 + (double)(schedule_random(&l->random) % 1000)));
        }
        pursue_cancels(l);
        session_pause(&l->sessions[0], LOOK_S);
    }
    while (l->cancel_count) {
        pursue_cancels(l);
        session_pause(&l->sessions[0], LOOK_S);
    }
    say(l, "E\n");
}

static bool open_sessions(struct load *l, const struct invocation *inv, const struct arg_list *targets)
{
    for (size_t i = 0; i < targets->count && i < DISPATCHERS_MAX; i++) {
        l->common[i] = inv->common;
        l->common[i].target = (char *)targets->items[i];
        l->common[i].timeout_ms = CALL_MS;
        if (session_open(&l->sessions[i], &l->common[i]) != ERR_OK)
            return false;
        l->count++;
    }
    return l->count > 0;
}

int chaos_load_run(struct invocation *inv)
{
    struct load *l = calloc(1, sizeof *l);
    struct arg_list targets = {0};
    const char *journal = NULL, *prefix = "device";
    int64_t tenant = 0, devices = 1, seed = 1, round = 0, rate = 4, patience_ms = 600000;
    const struct arg_flag flags[] = {
        {"dispatcher", ARG_LIST, &targets, "ADDRESS", "a dispatcher; may be repeated", 0, 0},
        {"journal", ARG_TEXT, &journal, "FILE", "where to write what was asked and answered", 0, 0},
        {"tenant", ARG_INT, &tenant, "N", "number of the tenant in the run", 0, 7},
        {"prefix", ARG_TEXT, &prefix, "TEXT", "of its devices' ids", 0, 0},
        {"devices", ARG_INT, &devices, "N", "how many it has", 1, 1000000},
        {"seed", ARG_INT, &seed, "N", "all choices follow from it", 0, INT64_MAX},
        {"round", ARG_INT, &round, "N", "part of request ids", 0, 1000000},
        {"rate", ARG_INT, &rate, "N", "batches a minute", 1, 60000},
        {"patience", ARG_DURATION, &patience_ms, "TIME", "expiry of most batches", 1000, 86400000},
        {0},
    };
    struct args a = {.positional = "", .flags = flags, .notes = "A part of muster chaos, which starts it."};

    args_parse(inv, &a);
    if (!l || !journal || !targets.count)
        args_refuse(inv, "needs --journal and --dispatcher");
    l->journal = fopen(journal, "we");
    if (!l->journal)
        args_refuse(inv, "--journal %s: cannot be written", journal);
    l->tenant = (struct load_tenant){(int)tenant, prefix, (uint32_t)devices, patience_ms};
    l->random = (uint64_t)seed;
    l->round = (unsigned)round;
    l->gap_s = 60.0 / (double)rate;
    if (!open_sessions(l, inv, &targets))
        return EXIT_USAGE;
    ev_signal_init(&l->on_term, on_term, SIGTERM);
    l->on_term.data = l;
    ev_signal_start(l->sessions[0].loop, &l->on_term);
    printf("ready listen=none\n");
    fflush(stdout);
    run(l);
    ev_signal_stop(l->sessions[0].loop, &l->on_term);
    for (int i = 0; i < l->count; i++)
        session_close(&l->sessions[i]);
    fclose(l->journal);
    free(l);
    return EXIT_DONE;
}
