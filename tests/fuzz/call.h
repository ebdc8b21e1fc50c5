/* A call in place of the gRPC server's: answers must be what the method says, and it must end exactly once. For one
 * source file of a program: it defines grpc_call_….
 * Owns: struct grpc_call, of the target that makes it. May call: lib/base/grpc_server, tests/fuzz/input. Loop rule:
 * none. */
#ifndef MUSTER_TESTS_FUZZ_CALL_H
#define MUSTER_TESTS_FUZZ_CALL_H

#include "lib/base/grpc_server.h"
#include "tests/fuzz/input.h"

struct grpc_call {
    const struct grpc_method *method;
    void *data;
    char *authorization;
    ProtobufCMessage *request;
    void (*on_drain)(struct grpc_call *call, void *service);
    bool taken, accepted, finished, paused, ended, cancelled;
    size_t pending;
    unsigned sent;
    enum status_code code;
    void (*see)(const ProtobufCMessage *response); /* what is sent; may be NULL */
};

const struct grpc_method *grpc_call_method(const struct grpc_call *call)
{
    return call->method;
}

const char *grpc_call_peer(const struct grpc_call *call)
{
    (void)call;
    return "127.0.0.1:1";
}

const char *grpc_call_metadata(const struct grpc_call *call, const char *key, size_t *len)
{
    if (len)
        *len = call->authorization ? strlen(call->authorization) : 0;
    return strcmp(key, "authorization") == 0 ? call->authorization : NULL;
}

void grpc_call_set_data(struct grpc_call *call, void *data)
{
    call->data = data;
}

void *grpc_call_data(const struct grpc_call *call)
{
    return call->data;
}

void grpc_call_take_request(struct grpc_call *call)
{
    call->taken = true;
}

size_t grpc_call_request_bytes(const struct grpc_call *call)
{
    (void)call;
    return 1000;
}

void grpc_call_accept(struct grpc_call *call)
{
    check(!call->finished && !call->accepted);
    call->accepted = true;
}

static void sent(struct grpc_call *call)
{
    check(!call->finished && (call->sent == 0 || call->method->server_streaming));
    call->sent++;
}

/* Results of commands go to the caller as they are stored: whether they make sense is not the dispatcher's matter. */
void grpc_call_send_bytes(struct grpc_call *call, struct slice response)
{
    touch(response);
    sent(call);
}

void grpc_call_send(struct grpc_call *call, const ProtobufCMessage *response)
{
    size_t len = protobuf_c_message_get_packed_size(response);
    uint8_t *bytes = malloc(len + 1);
    check(bytes && response->descriptor == call->method->response);
    check(protobuf_c_message_pack(response, bytes) == len);
    ProtobufCMessage *again = protobuf_c_message_unpack(call->method->response, NULL, len, bytes);
    check(again);
    if (call->see)
        call->see(again);
    protobuf_c_message_free_unpacked(again, NULL);
    free(bytes);
    sent(call);
}

size_t grpc_call_pending(const struct grpc_call *call)
{
    return call->pending;
}

void grpc_call_on_drain(struct grpc_call *call, void (*on_drain)(struct grpc_call *call, void *service))
{
    call->on_drain = on_drain;
}

void grpc_call_pause(struct grpc_call *call, bool paused)
{
    call->paused = paused;
}

void grpc_call_finish(struct grpc_call *call, const struct status *status)
{
    struct buf out = {0};
    check(!call->finished);
    call->finished = true;
    call->code = status ? status->code : STATUS_OK;
    if (status)
        status_encode(status, &out);
    check(!out.failed);
    check(call->code != STATUS_OK || call->sent || call->cancelled || call->method->server_streaming);
    buf_free(&out);
}

void grpc_call_reply(struct grpc_call *call, const ProtobufCMessage *response)
{
    grpc_call_send(call, response);
    grpc_call_finish(call, NULL);
}

#endif
