#include "cli/device_rows.h"

#include <string.h>

#include "cli/show.h"

/* Devices in one message: as many as the service takes, for each message is a commit. */
#define ROWS_A_MESSAGE 10000
/* Messages sent before the peer's flow control has taken them: bounds the memory of a million devices. */
#define PENDING_MAX (4u << 20)
/* A million devices take some minutes at worst. */
#define IMPORT_TIMEOUT_MS 600000
/* Ids in one IssueCredentials: the service's limit. */
#define TOKENS_A_CALL 10000

struct upload {
    struct session *s;
    const struct device_row *rows;
    size_t count, sent;
    bool ended, done, replace;
    struct status status;
    Muster__V1__ImportDevicesResponse *answer;
};

static void send_message(struct grpc_client_call *call, struct upload *u)
{
    static Muster__V1__Device devices[ROWS_A_MESSAGE];
    static Muster__V1__Device *list[ROWS_A_MESSAGE];
    Muster__V1__ImportDevicesRequest request = MUSTER__V1__IMPORT_DEVICES_REQUEST__INIT;
    size_t n = 0;

    for (; n < ROWS_A_MESSAGE && u->sent < u->count; n++, u->sent++) {
        if (u->rows[u->sent].labels)
            devices[n] = *u->rows[u->sent].labels;
        else
            muster__v1__device__init(&devices[n]);
        devices[n].id = u->rows[u->sent].id;
        devices[n].platform = u->rows[u->sent].platform;
        list[n] = &devices[n];
    }
    request.replace_labels = u->replace;
    request.devices = list;
    request.n_devices = n;
    grpc_client_send(call, &request.base);
}

/* Sends as much as fits. */
static void go_on(struct grpc_client_call *call, void *arg)
{
    struct upload *u = arg;

    while (u->sent < u->count && grpc_client_pending(call) < PENDING_MAX)
        send_message(call, u);
    if (u->sent == u->count && !u->ended) {
        u->ended = true;
        grpc_client_end(call);
    }
}

static void on_message(struct grpc_client_call *call, void *arg, const ProtobufCMessage *response)
{
    struct upload *u = arg;
    const Muster__V1__ImportDevicesResponse *from = (const Muster__V1__ImportDevicesResponse *)response;
    uint8_t packed[64];

    (void)call;
    size_t len = muster__v1__import_devices_response__get_packed_size(from);
    if (len > sizeof packed || u->answer)
        return;
    muster__v1__import_devices_response__pack(from, packed);
    u->answer = muster__v1__import_devices_response__unpack(NULL, len, packed);
}

static void on_status(struct grpc_client_call *call, void *arg, const struct status *status)
{
    struct upload *u = arg;

    (void)call;
    u->status = *status;
    u->done = true;
    ev_break(u->s->loop, EVBREAK_ONE);
}

Muster__V1__ImportDevicesResponse *device_rows_import(struct session *s, const struct device_row *rows, size_t count,
                                                      bool replace)
{
    static const struct grpc_client_handler handler = {
        .on_message = on_message, .on_status = on_status, .on_drain = go_on};
    struct upload u = {.s = s, .rows = rows, .count = count, .replace = replace};
    struct grpc_client_call *call =
        grpc_client_start(s->client, "/muster.v1.DeviceService/ImportDevices",
                          &muster__v1__import_devices_response__descriptor, IMPORT_TIMEOUT_MS, &handler, &u);

    if (!call)
        return NULL;
    go_on(call, &u);
    while (!u.done) {
        ev_run(s->loop, 0);
        if (session_stopped(s) && !u.done)
            grpc_client_cancel(call);
    }
    if (u.status.code == STATUS_OK && u.answer)
        return u.answer;
    session_print_error(&u.status, s->common->json);
    session_free_message((ProtobufCMessage *)u.answer);
    return NULL;
}

static bool print_tokens(const struct device_tokens *how, const struct session *s,
                         const Muster__V1__IssueCredentialsResponse *r)
{
    if (s->common->json && how->out == stdout)
        show_json(&r->base);
    else
        for (size_t i = 0; i < r->n_credentials; i++)
            fprintf(how->out, "%s %s\n", r->credentials[i]->device_id, r->credentials[i]->token);
    return !ferror(how->out);
}

int device_rows_tokens(struct session *s, char **ids, size_t count, const struct device_tokens *how)
{
    Google__Protobuf__Duration lifetime = GOOGLE__PROTOBUF__DURATION__INIT;

    lifetime.seconds = how->lifetime_ms / 1000;
    lifetime.nanos = (int32_t)(how->lifetime_ms % 1000) * 1000000;
    for (size_t at = 0; at < count; at += TOKENS_A_CALL) {
        Muster__V1__IssueCredentialsRequest request = MUSTER__V1__ISSUE_CREDENTIALS_REQUEST__INIT;
        request.device_ids = ids + at;
        request.n_device_ids = count - at < TOKENS_A_CALL ? count - at : TOKENS_A_CALL;
        request.lifetime = how->lifetime_ms ? &lifetime : NULL;
        request.revoke_earlier = how->revoke_earlier;
        ProtobufCMessage *answer = session_call(s, "DeviceService/IssueCredentials", &request.base,
                                                &muster__v1__issue_credentials_response__descriptor);
        if (!answer)
            return EXIT_RPC_FAIL;
        bool written = print_tokens(how, s, (const Muster__V1__IssueCredentialsResponse *)answer);
        session_free_message(answer);
        if (!written)
            return EXIT_NOT_ALL;
    }
    return EXIT_DONE;
}
