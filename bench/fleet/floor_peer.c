/* The floor: the same records a command costs over MQTT, without MQTT. */
#include "bench/fleet/peer.h"
#include "bench/fleet/process.h"

#define PUSH_BYTES   100
#define ANSWER_BYTES 60
#define DONE_BYTES   4

static enum turn start(struct device *d, struct process *p)
{
    device_set_ready(d, p);
    return TURN_ON;
}

/* The first byte of a record tells which it is: 'P' push, 'D' done. */
static enum turn on_data(struct device *d, struct process *p, struct slice *in)
{
    static const uint8_t answer[ANSWER_BYTES] = {'A'};
    struct slice record;

    while (in->len > 0) {
        if (in->data[0] == 'P') {
            if (!slice_bytes(in, PUSH_BYTES, &record))
                return TURN_ON;
            d->deadline_us = p->now_us;
            process_count(p, STAT_RECEIVED, 1);
            process_count(p, STAT_EXECUTED, 1);
            process_count(p, STAT_ANSWERED, 1);
            buf_put(&p->out, answer, sizeof answer);
        } else if (in->data[0] == 'D') {
            if (!slice_bytes(in, DONE_BYTES, &record))
                return TURN_ON;
            stats_acked(p->stats, d->deadline_us, p->now_us);
        } else {
            return TURN_BAD;
        }
    }
    return TURN_ON;
}

const struct peer floor_peer = {.open = start, .data = on_data};
