/* muster webhook add, list, remove, rotate, test, dead, replay. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/pager.h"
#include "cli/show.h"
#include "muster/v1/event_service.pb-c.h"

#define KINDS_MAX 63

static void show_added(const ProtobufCMessage *answer)
{
    const Muster__V1__CreateWebhookResponse *r = (const Muster__V1__CreateWebhookResponse *)answer;

    printf("web hook %" PRId64 ": %s\nsecret, shown only now: %s\n", r->webhook->id, r->webhook->url, r->secret);
}

int webhook_add(struct invocation *inv)
{
    struct arg_list names = {0};
    const char *description = "";
    const struct arg_flag flags[] = {
        {"kind", ARG_LIST, &names, "KIND", "only these, such as batch-completed; may be repeated", 0, 0},
        {"description", ARG_TEXT, &description, "TEXT", "to know it by", 0, 0},
        {0},
    };
    struct args a = {.positional = "URL",
                     .min = 1,
                     .max = 1,
                     .flags = flags,
                     .notes = "Events from now on are sent there, signed: docs/webhooks.md."};
    Muster__V1__CreateWebhookRequest request = MUSTER__V1__CREATE_WEBHOOK_REQUEST__INIT;
    Muster__V1__EventKind kinds[KINDS_MAX];

    args_parse(inv, &a);
    if (names.count > KINDS_MAX)
        args_refuse(inv, "--kind may be repeated %d times", KINDS_MAX);
    for (size_t i = 0; i < names.count; i++) {
        int value;
        if (!show_read_enum(&muster__v1__event_kind__descriptor, names.items[i], &value))
            args_refuse(inv, "--kind %s is none of %s", names.items[i],
                        show_enum_choices(&muster__v1__event_kind__descriptor));
        kinds[request.n_kinds++] = (Muster__V1__EventKind)value;
    }
    request.kinds = kinds;
    request.url = (char *)(uintptr_t)a.words.items[0];
    request.description = (char *)(uintptr_t)description;
    return call_once(inv, "EventService/CreateWebhook", &request.base, &muster__v1__create_webhook_response__descriptor,
                     show_added);
}

static void show_list(const ProtobufCMessage *answer)
{
    const Muster__V1__ListWebhooksResponse *r = (const Muster__V1__ListWebhooksResponse *)answer;
    char at[SHOW_TIME_BYTES];

    printf("%8s %8s %8s  %-25s %s\n", "WEBHOOK", "WAITING", "DEAD", "SUCCEEDED", "URL, KINDS, FAILURE");
    for (size_t i = 0; i < r->n_webhooks; i++) {
        const Muster__V1__Webhook *w = r->webhooks[i];
        printf("%8" PRId64 " %8" PRIu32 " %8" PRIu32 "  %-25s %s", w->id, w->waiting, w->dead,
               show_time(w->succeeded_at, at), w->url);
        for (size_t k = 0; k < w->n_kinds; k++)
            printf(" %s", show_enum(&muster__v1__event_kind__descriptor, (int)w->kinds[k]));
        printf("%s%s%s%s\n", *w->description ? "  " : "", w->description, *w->failure ? "  FAILS: " : "", w->failure);
    }
}

int webhook_list(struct invocation *inv)
{
    struct args a = {.positional = ""};
    Muster__V1__ListWebhooksRequest request = MUSTER__V1__LIST_WEBHOOKS_REQUEST__INIT;

    args_parse(inv, &a);
    return call_once(inv, "EventService/ListWebhooks", &request.base, &muster__v1__list_webhooks_response__descriptor,
                     show_list);
}

/* The number of the web hook a subcommand is about. */
static int64_t parse_number(struct invocation *inv)
{
    struct args a = {.positional = "WEBHOOK", .min = 1, .max = 1};

    args_parse(inv, &a);
    return args_number(inv, "WEBHOOK", a.words.items[0]);
}

int webhook_remove(struct invocation *inv)
{
    Muster__V1__DeleteWebhookRequest request = MUSTER__V1__DELETE_WEBHOOK_REQUEST__INIT;

    request.webhook_id = parse_number(inv);
    return call_once(inv, "EventService/DeleteWebhook", &request.base, &muster__v1__delete_webhook_response__descriptor,
                     NULL);
}

static void show_secret(const ProtobufCMessage *answer)
{
    printf("secret, shown only now: %s\n", ((const Muster__V1__RotateWebhookSecretResponse *)answer)->secret);
}

int webhook_rotate(struct invocation *inv)
{
    Muster__V1__RotateWebhookSecretRequest request = MUSTER__V1__ROTATE_WEBHOOK_SECRET_REQUEST__INIT;

    request.webhook_id = parse_number(inv);
    return call_once(inv, "EventService/RotateWebhookSecret", &request.base,
                     &muster__v1__rotate_webhook_secret_response__descriptor, show_secret);
}

static void show_tested(const ProtobufCMessage *answer)
{
    (void)answer;
    printf("a test is on its way: `muster webhook list` tells whether it was taken\n");
}

int webhook_test(struct invocation *inv)
{
    Muster__V1__TestWebhookRequest request = MUSTER__V1__TEST_WEBHOOK_REQUEST__INIT;

    request.webhook_id = parse_number(inv);
    return call_once(inv, "EventService/TestWebhook", &request.base, &muster__v1__test_webhook_response__descriptor,
                     show_tested);
}

static void show_dead(const ProtobufCMessage *answer, bool first)
{
    const Muster__V1__ListDeadEventsResponse *r = (const Muster__V1__ListDeadEventsResponse *)answer;
    char at[SHOW_TIME_BYTES];

    if (first)
        printf("%8s %-18s %8s %8s  %-25s %s\n", "EVENT", "KIND", "BATCH", "ATTEMPTS", "GIVEN UP", "FAILURE");
    for (size_t i = 0; i < r->n_events; i++) {
        const Muster__V1__DeadEvent *e = r->events[i];
        printf("%8" PRId64 " %-18s %8" PRId64 " %8" PRIu32 "  %-25s %s\n", e->event_id,
               show_enum(&muster__v1__event_kind__descriptor, (int)e->kind), e->batch_id, e->attempts,
               show_time(e->died_at, at), e->failure);
    }
}

int webhook_dead(struct invocation *inv)
{
    struct pager_flags page = {0};
    const struct arg_flag flags[] = {PAGER_FLAG(page), {0}};
    struct args a = {.positional = "WEBHOOK", .min = 1, .max = 1, .flags = flags};
    Muster__V1__ListDeadEventsRequest request = MUSTER__V1__LIST_DEAD_EVENTS_REQUEST__INIT;
    struct pager p = {.method = "EventService/ListDeadEvents",
                      .request = &request.base,
                      .page_token = &request.page_token,
                      .page_size = &request.page_size,
                      .response = &muster__v1__list_dead_events_response__descriptor,
                      .items = "events",
                      .show = show_dead};

    args_parse(inv, &a);
    request.webhook_id = args_number(inv, "WEBHOOK", a.words.items[0]);
    return pager_run(inv, &p, &page);
}

static void show_replayed(const ProtobufCMessage *answer)
{
    printf("%" PRIu32 " events are sent once more\n", ((const Muster__V1__ReplayDeadEventsResponse *)answer)->count);
}

int webhook_replay(struct invocation *inv)
{
    struct args a = {.positional = "WEBHOOK [EVENT...]",
                     .min = 1,
                     .max = 1001,
                     .notes = "Without events all that were given up are sent once more."};
    Muster__V1__ReplayDeadEventsRequest request = MUSTER__V1__REPLAY_DEAD_EVENTS_REQUEST__INIT;

    args_parse(inv, &a);
    request.webhook_id = args_number(inv, "WEBHOOK", a.words.items[0]);
    request.n_event_ids = a.words.count - 1;
    request.event_ids = invocation_alloc(inv, (request.n_event_ids + 1) * sizeof *request.event_ids);
    for (size_t i = 0; i < request.n_event_ids; i++)
        request.event_ids[i] = args_number(inv, "EVENT", a.words.items[i + 1]);
    return call_once(inv, "EventService/ReplayDeadEvents", &request.base,
                     &muster__v1__replay_dead_events_response__descriptor, show_replayed);
}
