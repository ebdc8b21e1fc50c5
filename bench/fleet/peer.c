/* What the peers share: a delivery is read, remembered, and executed at most once. */
#include "bench/fleet/peer.h"

#include "bench/fleet/process.h"

struct command *peer_take(struct device *d, struct process *p, struct slice payload, struct delivery *del)
{
    struct command *c = delivery_read(payload, del) ? commands_add(&d->commands, del->id) : NULL;

    if (!c)
        return NULL;
    process_count(p, STAT_RECEIVED, 1);
    process_count(p, STAT_REPEATED, c->received > 0);
    c->received = (uint16_t)(c->received + (c->received < UINT16_MAX));
    c->received_ms = process_stamp(p);
    c->changed = true;
    return c;
}

bool peer_decided(const struct command *c)
{
    return c->outcome != OUTCOME_NONE && c->outcome != OUTCOME_NOT_NOW;
}

void peer_decide(struct device *d, struct process *p, struct command *c, bool expired)
{
    if (peer_decided(c))
        return;
    c->changed = true;
    c->acked = false; /* what was acknowledged so far was only "not now" */
    c->acked_ms = 0;
    c->outcome = expired ? (uint8_t)OUTCOME_REJECTED
                         : (uint8_t)behaviour_outcome(&p->options->behaviour, d->number, c->id, c->received);
    if (c->outcome == OUTCOME_SUCCEEDED || c->outcome == OUTCOME_FAILED) {
        c->executed++;
        c->executed_ms = process_stamp(p);
        process_count(p, STAT_EXECUTED, 1);
    }
}
