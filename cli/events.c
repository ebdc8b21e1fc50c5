/* muster events watch, muster events devices. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/show.h"
#include "cli/visible.h"
#include "lib/base/clock.h"
#include "muster/v1/event_service.pb-c.h"

#define RETRY_S      0.5
#define RETRY_FOR_US 60000000
#define KINDS_MAX    64
#define NAMED_MAX    8 /* devices of an event; --json has all */

struct watch {
    struct session *s;
    Muster__V1__WatchEventsRequest request;
    char token[64];
    int64_t left;     /* events until it ends; negative: it does not */
    int64_t heard_us; /* or when it was lost, having been there */
    bool begun, ended;
    struct status status;
};

static void print_behind(const char *mark, const char *text)
{
    fputs(mark, stdout);
    visible_print(stdout, text);
}

static void show_event(const Muster__V1__Event *e)
{
    char at[SHOW_TIME_BYTES], text[320] = "";

    if (e->progress)
        show_progress_text(e->progress, text, sizeof text);
    printf("%8" PRId64 "  %s  %-16s", e->id, show_time(e->at, at),
           show_enum(&muster__v1__event_kind__descriptor, (int)e->kind));
    if (e->batch_id)
        printf("  batch %" PRId64, e->batch_id);
    if (e->device_count)
        printf("%s%" PRIu32 " devices", e->batch_id ? ", " : "  ", e->device_count);
    if (e->wave)
        printf(", wave %" PRIu32, e->wave);
    if (e->webhook_id)
        printf("  web hook %" PRId64, e->webhook_id);
    for (size_t i = 0; i < e->n_device_ids && i < NAMED_MAX; i++)
        print_behind(i ? " " : ": ", e->device_ids[i]);
    if (e->n_device_ids > NAMED_MAX)
        printf(" …");
    printf("%s%s", *text ? ": " : "", text);
    print_behind(*e->reason ? ": " : "", e->reason);
    putchar('\n');
}

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct watch *w = arg;
    const Muster__V1__WatchEventsResponse *answer = (const Muster__V1__WatchEventsResponse *)response;

    w->begun = true;
    if (w->left == 0)
        return;
    snprintf(w->token, sizeof w->token, "%s", answer->resume_token);
    if (!answer->event)
        return;
    if (w->s->common->json)
        show_json(response);
    else
        show_event(answer->event);
    fflush(stdout);
    if (w->left > 0 && --w->left == 0)
        grpc_client_cancel(call);
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct watch *w = arg;

    (void)call;
    if (w->begun) /* nothing may have happened for hours before */
        w->heard_us = clock_mono_us();
    w->status = *status;
    w->ended = true;
    ev_break(w->s->loop, EVBREAK_ONE);
}

static void watch_once(struct watch *w)
{
    static const struct grpc_client_handler handler = {.on_message = on_message, .on_status = on_status};
    struct grpc_client_call *call = grpc_client_start(w->s->client, "/muster.v1.EventService/WatchEvents",
                                                      &muster__v1__watch_events_response__descriptor, 0, &handler, w);

    w->begun = w->ended = false;
    if (!call) {
        status_set(&w->status, STATUS_INTERNAL, NULL, "out of memory");
        return;
    }
    w->request.resume_token = w->token;
    if (*w->token)
        w->request.from_beginning = false;
    grpc_client_send(call, &w->request.base);
    grpc_client_end(call);
    while (!w->ended)
        ev_run(w->s->loop, 0);
}

/* Goes on where it was when it loses its dispatcher. */
static int run(struct watch *w)
{
    do {
        w->heard_us = clock_mono_us();
        watch_once(w);
        while (w->left && w->status.code == STATUS_UNAVAILABLE && clock_mono_us() - w->heard_us < RETRY_FOR_US) {
            session_pause(w->s, RETRY_S);
            watch_once(w);
        }
    } while (w->left && w->status.code == STATUS_OK);
    if (!w->left)
        return EXIT_DONE;
    session_print_error(&w->status, w->s->common->json);
    return EXIT_RPC_FAIL;
}

static size_t read_kinds(const struct invocation *inv, const struct arg_list *names,
                         Muster__V1__EventKind kinds[KINDS_MAX])
{
    if (names->count > KINDS_MAX)
        args_refuse(inv, "--kind may be repeated %d times", KINDS_MAX);
    for (size_t i = 0; i < names->count; i++) {
        int value;
        if (!show_read_enum(&muster__v1__event_kind__descriptor, names->items[i], &value))
            args_refuse(inv, "--kind %s is none of %s", names->items[i],
                        show_enum_choices(&muster__v1__event_kind__descriptor));
        kinds[i] = (Muster__V1__EventKind)value;
    }
    return names->count;
}

int events_watch(struct invocation *inv)
{
    struct arg_list names = {0};
    const char *token = "";
    bool from_beginning = false;
    int64_t batch = 0, count = -1;
    const struct arg_flag flags[] = {
        {"kind", ARG_LIST, &names, "KIND", "only these, such as batch-completed; may be repeated", 0, 0},
        {"batch", ARG_INT, &batch, "N", "only of this batch", 1, INT64_MAX},
        {"token", ARG_TEXT, &token, "TOKEN", "go on behind this resumeToken of --json", 0, 0},
        {"from-beginning", ARG_BOOL, &from_beginning, "", "all that are still kept first", 0, 0},
        {"count", ARG_INT, &count, "N", "end after so many events", 1, INT64_MAX},
        {0},
    };
    struct args a = {.positional = "", .flags = flags};
    struct watch w = {.request = MUSTER__V1__WATCH_EVENTS_REQUEST__INIT};
    Muster__V1__EventKind kinds[KINDS_MAX];
    struct session s;

    args_parse(inv, &a);
    if (*token && from_beginning)
        args_refuse(inv, "--token does not go with --from-beginning");
    w.request.kinds = kinds;
    w.request.n_kinds = read_kinds(inv, &names, kinds);
    w.request.batch_id = batch;
    w.request.from_beginning = from_beginning;
    w.left = count;
    if (strlen(token) >= sizeof w.token)
        args_refuse(inv, "--token %s: is none", token);
    snprintf(w.token, sizeof w.token, "%s", token);
    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    w.s = &s;
    int status = run(&w);
    session_close(&s);
    return status;
}

static void show_devices(const ProtobufCMessage *answer)
{
    printf("%s\n", ((const Muster__V1__GetDeviceEventsResponse *)answer)->enabled ? "on" : "off");
}

int events_devices(struct invocation *inv)
{
    struct args a = {.positional = "[on|off]", .max = 1};
    Muster__V1__GetDeviceEventsRequest get = MUSTER__V1__GET_DEVICE_EVENTS_REQUEST__INIT;
    Muster__V1__SetDeviceEventsRequest set = MUSTER__V1__SET_DEVICE_EVENTS_REQUEST__INIT;

    args_parse(inv, &a);
    if (!a.words.count)
        return call_once(inv, "EventService/GetDeviceEvents", &get.base,
                         &muster__v1__get_device_events_response__descriptor, show_devices);
    set.enabled = strcmp(a.words.items[0], "on") == 0;
    if (!set.enabled && strcmp(a.words.items[0], "off") != 0)
        args_refuse(inv, "%s is neither on nor off", a.words.items[0]);
    return call_once(inv, "EventService/SetDeviceEvents", &set.base,
                     &muster__v1__set_device_events_response__descriptor, NULL);
}
