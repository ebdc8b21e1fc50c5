/* Commands as core NATS requests: PUB to devices.<id>.commands with a reply subject of its own each, all under one
 * wildcard subscription, as NATS's client libraries do it. */
#include <stdio.h>
#include <string.h>

#include "bench/fleet/nats.h"
#include "bench/sender/sender.h"

#define INBOX "_INBOX.mustersender."

static void login(struct buf *out)
{
    nats_put_connect(out, "muster-sender");
    nats_put_subscribe(out, INBOX "*", 1);
    nats_put_ping(out); /* its PONG: the subscription is there */
}

static void command(struct buf *out, const char *device, uint64_t number, struct slice payload)
{
    char subject[192], reply[64];
    int subject_len = snprintf(subject, sizeof subject, "devices.%s.commands", device);
    int reply_len = snprintf(reply, sizeof reply, INBOX "%llx", (unsigned long long)number);

    nats_put_publish(out, (struct slice){(const uint8_t *)subject, (size_t)subject_len},
                     (struct slice){(const uint8_t *)reply, (size_t)reply_len}, payload);
}

static enum err on_operation(struct sender *s, struct buf *out, const struct nats_message *in)
{
    switch (in->op) {
    case NATS_MSG:
        return sender_answered(s, in->payload);
    case NATS_PING:
        nats_put_pong(out);
        return ERR_OK;
    case NATS_PONG:
        sender_ready(s);
        return ERR_OK;
    case NATS_ERR:
        fprintf(stderr, "muster-sender: NATS says%.*s\n", (int)in->text.len, (const char *)in->text.data);
        return ERR_PROTOCOL;
    case NATS_INFO:
    case NATS_OK:
        break;
    }
    return ERR_OK;
}

static enum err data(struct sender *s, struct buf *out, struct slice *in)
{
    struct nats_message message;
    enum err e = ERR_OK;

    while (e == ERR_OK) {
        enum nats_result got = nats_read(in, &message);
        if (got != NATS_DONE)
            return got == NATS_MORE ? ERR_OK : ERR_PROTOCOL;
        e = on_operation(s, out, &message);
    }
    return e;
}

const struct dialect nats_dialect = {.login = login, .command = command, .data = data};
