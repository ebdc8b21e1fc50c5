/* A device's MQTT session: login, subscription, deliveries taken, executed once, and answered until the PUBACK. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/fleet/mqtt.h"
#include "bench/fleet/peer.h"
#include "bench/fleet/process.h"

/* Answers one device may owe; a server that keeps more in flight is cut off. */
#define ANSWERS_MAX 4096

static uint16_t next_packet_id(struct device *d)
{
    bool taken = true;

    while (taken) {
        taken = ++d->next_packet_id == 0;
        for (uint32_t i = 0; i < d->answer_count; i++)
            taken = taken || d->answers[i].packet_id == d->next_packet_id;
    }
    return d->next_packet_id;
}

static enum turn open_session(struct device *d, struct process *p)
{
    const struct mqtt_login login = {.version = p->options->mqtt_version,
                                     .device = d->id,
                                     .password = d->token,
                                     .keepalive_s = p->options->keepalive_s,
                                     .keep_session = p->options->keep_session};

    d->pinged = false;
    d->receive_maximum = UINT16_MAX;
    mqtt_put_connect(&p->out, &login);
    return TURN_ON;
}

/* The answer number `i` is done with, taken by the server or not. */
static void settle(struct device *d, struct process *p, uint32_t i, bool taken)
{
    struct answer *a = &d->answers[i];

    if (taken) {
        struct command *c = commands_find(&d->commands, a->id);
        if (!c->acked)
            c->acked_ms = process_stamp(p);
        c->acked = c->changed = true;
        stats_acked(p->stats, a->received_us, p->now_us);
    }
    *a = d->answers[--d->answer_count];
}

/* Sends the answer number `i`. At QoS 0 that settles it, at QoS 1 its PUBACK will. */
static void send_answer(struct device *d, struct process *p, uint32_t i)
{
    const struct behaviour *b = &p->options->behaviour;
    const struct mqtt_topic topic = {d->id, "acks"};
    struct answer *a = &d->answers[i];
    struct command *c = commands_find(&d->commands, a->id);
    int copies = behaviour_duplicates(b, d->number, a->id) ? 2 : 1;
    bool confirmed = p->options->qos == 1;

    peer_decide(d, p, c, a->expired);
    const struct acknowledgement ack = {.id = a->id,
                                        .device = d->id,
                                        .outcome = (enum outcome)c->outcome,
                                        .wants = (enum wants)a->wants,
                                        .payload_bytes = b->payload_bytes};
    buf_reset(&p->body);
    acknowledgement_write(&p->body, &ack);
    if (confirmed && a->packet_id == 0)
        d->in_flight++;
    for (int n = 0; n < copies; n++) {
        a->packet_id = confirmed ? next_packet_id(d) : 0;
        mqtt_put_publish(&p->out, p->options->mqtt_version, a->packet_id, topic, buf_slice(&p->body));
        process_count(p, STAT_ANSWERED, 1);
    }
    if (!confirmed)
        settle(d, p, i, true);
}

/* Sends what is due, as far as the server's receive maximum goes. */
static void send_due(struct device *d, struct process *p)
{
    for (uint32_t i = 0; i < d->answer_count && d->in_flight < d->receive_maximum && !p->held;) {
        uint32_t owed = d->answer_count;
        if (d->answers[i].packet_id == 0 && d->answers[i].due_us <= p->now_us)
            send_answer(d, p, i);
        i += d->answer_count == owed; /* of a settled one the last has the place now */
    }
}

static int64_t next_due(const struct device *d, const struct process *p)
{
    int64_t keepalive = (int64_t)p->options->keepalive_s * 1000000, due = INT64_MAX;

    /* A quarter before the time, so that the PINGREQ is there in time; then as long for the answer. */
    if (keepalive > 0)
        due = d->pinged ? d->deadline_us : d->last_sent_us + keepalive - keepalive / 4;
    for (uint32_t i = 0; i < d->answer_count && d->in_flight < d->receive_maximum && !p->held; i++)
        if (d->answers[i].packet_id == 0 && d->answers[i].due_us < due)
            due = d->answers[i].due_us;
    return due;
}

static enum turn on_timer(struct device *d, struct process *p)
{
    int64_t keepalive = (int64_t)p->options->keepalive_s * 1000000;

    send_due(d, p);
    if (keepalive == 0)
        return TURN_ON;
    if (d->pinged)
        return p->now_us >= d->deadline_us ? TURN_GONE : TURN_ON;
    if (p->now_us - d->last_sent_us >= keepalive - keepalive / 4) {
        mqtt_put_pingreq(&p->out);
        d->pinged = true;
        d->deadline_us = p->now_us + keepalive / 4;
    }
    return TURN_ON;
}

static struct answer *find_answer(struct device *d, const uint8_t id[UUID_BYTES])
{
    for (uint32_t i = 0; i < d->answer_count; i++)
        if (memcmp(d->answers[i].id, id, UUID_BYTES) == 0)
            return &d->answers[i];
    return NULL;
}

static struct answer *add_answer(struct device *d)
{
    if (d->answer_count == d->answer_size) {
        uint32_t size = d->answer_size ? d->answer_size * 2 : 1;
        struct answer *grown = size <= ANSWERS_MAX ? realloc(d->answers, size * sizeof *grown) : NULL;
        if (!grown)
            return NULL;
        d->answers = grown;
        d->answer_size = size;
    }
    return &d->answers[d->answer_count++];
}

/* Owes an answer for this delivery, due after `think_us`. Returns the one that is owed already, if so; NULL at the
 * bound. */
static struct answer *owe(struct device *d, struct process *p, const struct delivery *del, int64_t think_us)
{
    struct answer *a = find_answer(d, del->id);

    if (a)
        return a;
    a = add_answer(d);
    if (!a)
        return NULL;
    *a = (struct answer){.received_us = p->now_us, .due_us = p->now_us + think_us, .wants = (uint8_t)del->wants};
    memcpy(a->id, del->id, UUID_BYTES);
    a->expired = del->expires_s != 0 && del->expires_s <= (int64_t)time(NULL);
    return a;
}

/* Answers at once when there is nothing to think about, or again when the answer was sent already. */
static enum turn answer(struct device *d, struct process *p, const struct delivery *del, bool thinks)
{
    struct answer *a = owe(d, p, del, thinks ? behaviour_think_us(&p->options->behaviour, d->number, del->id) : 0);

    if (!a)
        return TURN_BAD;
    if (p->held)
        return TURN_ON;
    if (a->due_us > p->now_us)
        timers_sooner(p->timers, (uint32_t)(d - p->devices), a->due_us);
    else if (a->packet_id != 0 || d->in_flight < d->receive_maximum)
        send_answer(d, p, (uint32_t)(a - d->answers));
    return TURN_ON;
}

/* The device dies between a delivery and its answer: before executing, or after. */
static enum turn crash(struct device *d, struct process *p, const struct delivery *del, struct command *c,
                       enum crash where)
{
    if (where == CRASH_AFTER_EXECUTING) {
        struct answer *a = owe(d, p, del, 0);
        if (!a)
            return TURN_BAD;
        peer_decide(d, p, c, a->expired);
    }
    return TURN_CRASH;
}

static enum turn on_delivery(struct device *d, struct process *p, const struct mqtt_packet *in)
{
    struct delivery del;

    struct command *c = peer_take(d, p, in->payload, &del);
    if (!c)
        return TURN_BAD;
    enum crash where = behaviour_crash(&p->options->behaviour, d->number, c->id, c->received);
    if (where != CRASH_NONE)
        return crash(d, p, &del, c, where);
    if (in->qos == 1)
        mqtt_put_puback(&p->out, in->packet_id);
    if (!d->silent)
        return answer(d, p, &del, !peer_decided(c));
    process_count(p, STAT_SILENT, 1);
    return TURN_ON;
}

static enum turn on_puback(struct device *d, struct process *p, const struct mqtt_packet *in)
{
    for (uint32_t i = 0; i < d->answer_count; i++) {
        if (d->answers[i].packet_id != in->packet_id)
            continue;
        settle(d, p, i, in->reason < 0x80);
        d->in_flight--;
        if (d->answer_count > d->in_flight)
            send_due(d, p);
        break;
    }
    return TURN_ON; /* unknown: of the first copy of an answer sent twice */
}

static enum turn on_packet(struct device *d, struct process *p, const struct mqtt_packet *in)
{
    switch (in->type) {
    case MQTT_PUBLISH:
        return d->state == DEVICE_READY || d->state == DEVICE_SUBSCRIBING ? on_delivery(d, p, in) : TURN_BAD;
    case MQTT_PUBACK:
        return on_puback(d, p, in);
    case MQTT_CONNACK:
        if (d->state != DEVICE_LOGIN)
            return TURN_BAD;
        if (in->reason != 0)
            return TURN_REFUSED;
        d->receive_maximum = in->receive_maximum;
        d->state = DEVICE_SUBSCRIBING;
        mqtt_put_subscribe(&p->out, p->options->mqtt_version, next_packet_id(d), (struct mqtt_topic){d->id, "commands"},
                           p->options->qos);
        return TURN_ON;
    case MQTT_SUBACK:
        if (d->state != DEVICE_SUBSCRIBING)
            return TURN_BAD;
        if (in->reason >= 0x80)
            return TURN_REFUSED;
        device_set_ready(d, p);
        send_due(d, p);
        return TURN_ON;
    case MQTT_PINGRESP:
        d->pinged = false;
        return TURN_ON;
    case MQTT_DISCONNECT:
        return TURN_GONE;
    default:
        return TURN_BAD;
    }
}

static enum turn on_data(struct device *d, struct process *p, struct slice *in)
{
    struct mqtt_packet packet;

    for (;;) {
        enum mqtt_result got = mqtt_read(in, p->options->mqtt_version, &packet);
        if (got != MQTT_DONE)
            return got == MQTT_MORE ? TURN_ON : TURN_BAD;
        enum turn turn = on_packet(d, p, &packet);
        if (turn != TURN_ON)
            return turn;
    }
}

const struct peer mqtt_peer = {
    .open = open_session, .data = on_data, .timer = on_timer, .due = next_due, .goodbye = mqtt_put_disconnect};
