/* A device on core NATS: one subscription, requests taken, executed once, and answered at once. */
#include <stdio.h>

#include "bench/fleet/nats.h"
#include "bench/fleet/peer.h"
#include "bench/fleet/process.h"

/* The PONG says that the server knows the subscription. */
static enum turn start(struct device *d, struct process *p)
{
    char subject[192];

    if (snprintf(subject, sizeof subject, "devices.%s.commands", d->id) >= (int)sizeof subject)
        return TURN_BAD;
    nats_put_connect(&p->out, "muster-fleet");
    nats_put_subscribe(&p->out, subject, 1);
    nats_put_ping(&p->out);
    d->state = DEVICE_SUBSCRIBING;
    return TURN_ON;
}

static enum turn on_request(struct device *d, struct process *p, const struct nats_message *in)
{
    struct delivery del;
    struct command *c = peer_take(d, p, in->payload, &del);

    if (!c)
        return TURN_BAD;
    peer_decide(d, p, c, false);
    const struct acknowledgement ack = {.id = del.id,
                                        .device = d->id,
                                        .outcome = (enum outcome)c->outcome,
                                        .wants = del.wants,
                                        .payload_bytes = p->options->behaviour.payload_bytes};
    if (in->reply.len == 0)
        return TURN_ON;
    buf_reset(&p->body);
    acknowledgement_write(&p->body, &ack);
    nats_put_publish(&p->out, in->reply, (struct slice){0}, buf_slice(&p->body));
    process_count(p, STAT_ANSWERED, 1);
    c->acked = true; /* core NATS confirms nothing: sent is all there is to know */
    stats_acked(p->stats, p->now_us, p->now_us);
    return TURN_ON;
}

static enum turn on_operation(struct device *d, struct process *p, const struct nats_message *in)
{
    switch (in->op) {
    case NATS_MSG:
        return on_request(d, p, in);
    case NATS_PING:
        nats_put_pong(&p->out);
        return TURN_ON;
    case NATS_PONG:
        if (d->state == DEVICE_SUBSCRIBING)
            device_set_ready(d, p);
        return TURN_ON;
    case NATS_ERR:
        return d->state == DEVICE_READY ? TURN_GONE : TURN_REFUSED;
    case NATS_INFO:
    case NATS_OK:
        break;
    }
    return TURN_ON;
}

static enum turn on_data(struct device *d, struct process *p, struct slice *in)
{
    struct nats_message message;

    for (;;) {
        enum nats_result got = nats_read(in, &message);
        if (got != NATS_DONE)
            return got == NATS_MORE ? TURN_ON : TURN_BAD;
        enum turn turn = on_operation(d, p, &message);
        if (turn != TURN_ON)
            return turn;
    }
}

const struct peer nats_peer = {.open = start, .data = on_data};
