#include "tests/sim/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/fleet/mqtt.h"
#include "proto/command_id.h"
#include "proto/credential.h"
#include "proto/delivery.h"
#include "tests/sim/caller.h"
#include "tests/sim/fault.h"
#include "tests/sim/oracle.h"
#include "tests/sim/pg_model.h"

enum { NOT_NOW = 4 };

static void *more(void *v, size_t count, size_t *room, size_t size)
{
    return table_grow(v, count, room, size);
}

static void think(void *arg);
/* Losses beyond those after which a command is given up: the last one is being counted while the device comes back, and
 * a worker that is killed counts none. */
#define BROKEN_SLACK 4

static void go_away(struct device *d, bool silently, int64_t away_us);
static void retry(void *arg);

/* --- sending ----------------------------------------------------------------------------------------------------- */

static void send_buf(struct device *d, struct buf *b)
{
    link_write(d->link, buf_head(b), buf_len(b));
    buf_free(b);
}

static void send_ack(struct device *d, struct device_ack *a)
{
    struct buf payload = {0}, out = {0};
    struct command_id id = {a->batch, d->tenant, d->seq};
    char text[COMMAND_ID_TEXT];
    command_id_write(text, &id);
    buf_put_u8(&payload, 0x0a);
    buf_put_u8(&payload, COMMAND_ID_TEXT);
    buf_put(&payload, text, sizeof text);
    buf_put_u8(&payload, 0x10);
    buf_put_u8(&payload, a->outcome);
    if (a->batch % 3 == 0 && a->outcome != NOT_NOW) { /* a code: a result to keep */
        buf_put_u8(&payload, 0x18);
        buf_put_u8(&payload, 7);
    }
    if (++d->packet == 0)
        d->packet = 1;
    a->packet = d->packet;
    a->sent = true;
    mqtt_put_publish(&out, d->version, a->packet, (struct mqtt_topic){d->id, "acks"}, buf_slice(&payload));
    buf_free(&payload);
    send_buf(d, &out);
}

static void mark_answered(struct device *d, uint64_t batch)
{
    for (size_t i = 0; i < d->task_count; i++)
        d->tasks[i].answered = d->tasks[i].answered || d->tasks[i].batch == batch;
}

static void answer(struct device *d, const struct device_task *task, uint8_t outcome)
{
    uint64_t batch = task->batch;
    d->acks = more(d->acks, d->ack_count, &d->ack_room, sizeof *d->acks);
    d->acks[d->ack_count] = (struct device_ack){batch, 0, outcome, false};
    d->ack_count++;
    if (!d->connected)
        return;
    mark_answered(d, batch);
    send_ack(d, &d->acks[d->ack_count - 1]);
}

/* --- doing
 * --------------------------------------------------------------------------------------------------------------------
 */

static struct device_done *find_done(const struct device *d, uint64_t batch)
{
    for (size_t i = 0; i < d->done_count; i++)
        if (d->done[i].batch == batch)
            return &d->done[i];
    return NULL;
}

static void plan_think(struct device *d)
{
    struct world *w = d->world;
    int64_t takes = d->hasty || chance(w, 600) ? between(w, 200, 5 * MS) : between(w, 5 * MS, 3 * S);
    if (!event_planned(&d->think))
        event_plan(w, &d->think, w->now_us + takes, NULL, think, d);
}

/* Outcomes after which the batch's commands are tried again: bits of states. */
static int tried_again(const struct device *d, uint64_t batch)
{
    const struct row_batch *row = pg_model_batch(d->world->pg, (int64_t)batch);
    return row ? row->control.retry_after : 0;
}

/* Where commands are tried again, more goes wrong. */
static uint8_t some_outcome(struct device *d, uint64_t batch)
{
    bool retried = tried_again(d, batch);
    unsigned draw = below(d->world, 1000);
    return draw < d->not_now ? NOT_NOW : draw < (retried ? 500 : 850) ? 1 : draw < (retried ? 850 : 930) ? 2 : 3;
}

static void remember(struct device *d, const struct device_task *task, uint8_t outcome)
{
    struct device_done *done = find_done(d, task->batch);
    if (!done) {
        d->done = more(d->done, d->done_count, &d->done_room, sizeof *d->done);
        done = &d->done[d->done_count++];
    }
    *done = (struct device_done){task->batch, outcome, task->attempt};
}

static void execute(struct device *d, const struct device_task *task)
{
    struct world *w = d->world;
    uint64_t batch = task->batch;
    uint8_t outcome = some_outcome(d, batch);
    if (outcome == NOT_NOW)
        oracle_put_off(w, d, batch);
    else {
        remember(d, task, outcome);
        oracle_executed(w, d, batch, task->attempt, outcome);
    }
    trace(w, "device %s does %llu: %d", d->id, (unsigned long long)batch, outcome);
    answer(d, task, outcome);
}

/* It was done, the service knows how, and has it tried again. */
static bool is_anew(const struct device *d, const struct device_task *task, const struct device_done *done)
{
    bool unheard = task->answered;
    for (size_t i = 0; i < d->ack_count; i++)
        unheard = unheard || d->acks[i].batch == task->batch;
    return !unheard && task->attempt > done->attempt && task->retried >> done->outcome & 1;
}

static void think(void *arg)
{
    struct device *d = arg;
    if (d->task_count == 0)
        return;
    struct device_task task = d->tasks[0];
    memmove(d->tasks, d->tasks + 1, --d->task_count * sizeof *d->tasks);
    const struct device_done *done = find_done(d, task.batch);
    if (done && !is_anew(d, &task, done))
        answer(d, &task, done->outcome);
    else
        execute(d, &task);
    if (d->task_count)
        plan_think(d);
}

/* --- receiving --------------------------------------------------------------------------------------------------- */

/* Of a batch with a value per device the command ends with this one's, behind its length. */
static void check_value(const struct device *d, uint64_t batch, struct slice payload)
{
    const struct row_batch *row = pg_model_batch(d->world->pg, (int64_t)batch);
    char text[CALLER_VALUE_MAX];
    if (!row || !row->valued)
        return;
    size_t len = caller_value(text, d->tenant, d->seq, row->request_id);
    const uint8_t *at = payload.data + payload.len - len;
    if (payload.len <= len || at[-1] != len || memcmp(at, text, len) != 0)
        violated(d->world, "device %s got %llu with another's value", d->id, (unsigned long long)batch);
}

static struct device_broken *find_broken(const struct device *d, uint64_t batch)
{
    for (size_t i = 0; i < d->broken_count; i++)
        if (d->broken[i].batch == batch)
            return &d->broken[i];
    return NULL;
}

unsigned device_broke(const struct device *d, uint64_t batch)
{
    const struct device_broken *b = find_broken(d, batch);
    return b ? b->times : 0;
}

/* Some commands do, each for some of its devices. */
static bool breaks(const struct device *d, uint64_t batch)
{
    return fault_plan(d->world)->quarantine_after && (batch * 7 + d->seq) % 4 == 0;
}

static void break_down(struct device *d, uint64_t batch)
{
    struct device_broken *b = find_broken(d, batch);
    if (!b) {
        d->broken = more(d->broken, d->broken_count, &d->broken_room, sizeof *d->broken);
        b = &d->broken[d->broken_count++];
        *b = (struct device_broken){batch, 0};
    }
    b->times++;
    trace(d->world, "device %s breaks down by %llu", d->id, (unsigned long long)batch);
    if (b->times > fault_plan(d->world)->quarantine_after + BROKEN_SLACK)
        violated(d->world, "device %s is sent %llu that has broken its connection %u times", d->id,
                 (unsigned long long)batch, b->times - 1);
    go_away(d, false, between(d->world, 200 * MS, 2 * S));
}

/* It stands behind the head, if it is there. */
static uint8_t retried_of(struct slice payload)
{
    const uint8_t *p = payload.data + DELIVERY_HEAD;
    uint8_t outcomes = 0;
    if (payload.len < DELIVERY_HEAD + 2 || p[0] != (5 << 3 | 2) || payload.len < DELIVERY_HEAD + 2u + p[1])
        return 0;
    for (uint8_t i = 0; i < p[1]; i++)
        outcomes |= (uint8_t)(1 << p[2 + i]);
    return outcomes;
}

static void on_delivery(struct device *d, const struct mqtt_packet *p, int64_t sent_us, int64_t sent_ms)
{
    struct buf out = {0};
    struct command_id id;
    if (p->payload.len < 40 || !command_id_read(&id, p->payload.data + 2, COMMAND_ID_TEXT)) {
        violated(d->world, "device %s got a delivery that is none", d->id);
        return;
    }
    uint8_t attempt = p->payload.data[39];
    if (id.tenant != d->tenant || id.seq != d->seq)
        violated(d->world, "device %s got a command of %u/%u", d->id, id.tenant, id.seq);
    check_value(d, id.batch, p->payload);
    /* An answer that crosses it on the way is one to it, too. */
    bool answered = false;
    for (size_t i = 0; i < d->ack_count; i++)
        answered = answered || (d->acks[i].batch == id.batch && d->acks[i].sent);
    /* The same once more is no second command. */
    for (size_t i = 0; i < d->task_count; i++)
        answered = answered || (d->tasks[i].batch == id.batch && d->tasks[i].connection == d->connections);
    if (p->packet_id) {
        mqtt_put_puback(&out, p->packet_id);
        send_buf(d, &out);
    }
    d->tasks = more(d->tasks, d->task_count, &d->task_room, sizeof *d->tasks);
    d->tasks[d->task_count++] =
        (struct device_task){id.batch, d->connections, attempt, retried_of(p->payload), answered};
    trace(d->world, "device %s gets %llu, attempt %d", d->id, (unsigned long long)id.batch, attempt);
    oracle_delivered(d->world, d, id.batch, attempt, sent_us, sent_ms);
    if (breaks(d, id.batch)) {
        d->task_count--;
        break_down(d, id.batch);
    } else {
        plan_think(d);
    }
}

static void on_puback(struct device *d, uint16_t packet)
{
    for (size_t i = 0; i < d->ack_count; i++) {
        if (!d->acks[i].sent || d->acks[i].packet != packet)
            continue;
        trace(d->world, "device %s has PUBACK of %llu: %d", d->id, (unsigned long long)d->acks[i].batch,
              d->acks[i].outcome);
        oracle_acknowledged(d->world, d, d->acks[i].batch, d->acks[i].outcome);
        memmove(&d->acks[i], &d->acks[i + 1], (--d->ack_count - i) * sizeof *d->acks);
        return;
    }
}

static void go_away(struct device *d, bool silently, int64_t away_us)
{
    struct world *w = d->world;
    if (d->link)
        link_close(d->link, silently);
    d->link = NULL;
    d->connected = false;
    buf_reset(&d->in);
    event_cancel(w, &d->ping);
    for (size_t i = 0; i < d->ack_count; i++)
        d->acks[i].sent = false;
    event_plan(w, &d->retry, w->now_us + away_us, NULL, retry, d);
}

static void ping(void *arg)
{
    struct device *d = arg;
    struct world *w = d->world;
    struct buf out = {0};
    if (w->now_us - d->heard_us > d->keepalive_s * 3 * S / 2) {
        trace(w, "device %s hears nothing", d->id);
        go_away(d, true, between(w, 10 * MS, 1 * S));
        return;
    }
    mqtt_put_pingreq(&out);
    send_buf(d, &out);
    event_plan(w, &d->ping, w->now_us + d->keepalive_s * S * 2 / 3, NULL, ping, d);
}

static void on_connack(struct device *d, uint8_t reason)
{
    struct buf out = {0};
    if (reason) {
        trace(d->world, "device %s is refused: 0x%02x", d->id, reason);
        if (!d->deleted && (reason == 4 || reason == 5 || reason == 0x86 || reason == 0x87))
            violated(d->world, "device %s is refused with 0x%02x", d->id, reason);
        go_away(d, false, between(d->world, 500 * MS, 3 * S));
        return;
    }
    d->connected = true;
    d->connected_us = d->world->now_us;
    d->connections++;
    d->subscribe = ++d->packet ? d->packet : ++d->packet;
    mqtt_put_subscribe(&out, d->version, d->subscribe, (struct mqtt_topic){d->id, "commands"}, 1);
    send_buf(d, &out);
    for (size_t i = 0; i < d->ack_count; i++) {
        mark_answered(d, d->acks[i].batch);
        send_ack(d, &d->acks[i]);
    }
    event_plan(d->world, &d->ping, d->world->now_us + d->keepalive_s * S * 2 / 3, NULL, ping, d);
}

static void on_packet(struct device *d, const struct mqtt_packet *p, int64_t sent_us, int64_t sent_ms)
{
    switch (p->type) {
    case MQTT_CONNACK:
        on_connack(d, p->reason);
        break;
    case MQTT_PUBLISH:
        on_delivery(d, p, sent_us, sent_ms);
        break;
    case MQTT_PUBACK:
        if (p->reason >= 0x80)
            violated(d->world, "device %s: acknowledgement refused with 0x%02x", d->id, p->reason);
        on_puback(d, p->packet_id);
        break;
    default:
        break;
    }
}

void device_data(struct device *d, const uint8_t *data, size_t len, int64_t sent_us, int64_t sent_ms)
{
    struct mqtt_packet packet;
    const struct stream *link = d->link;
    buf_put(&d->in, data, len);
    d->heard_us = d->world->now_us;
    struct slice rest = buf_slice(&d->in);
    enum mqtt_result got = MQTT_MORE;
    while (d->link == link && (got = mqtt_read(&rest, d->version, &packet)) == MQTT_DONE)
        on_packet(d, &packet, sent_us, sent_ms);
    if (got == MQTT_BAD)
        violated(d->world, "device %s got bytes that are no MQTT", d->id);
    if (d->link == link)
        buf_consume(&d->in, buf_len(&d->in) - rest.len);
    else
        buf_reset(&d->in);
}

void device_closed(struct device *d)
{
    trace(d->world, "device %s: connection closed", d->id);
    d->link = NULL;
    go_away(d, false, between(d->world, 1 * MS, d->hasty ? 100 * MS : 2 * S));
}

/* --- connecting -------------------------------------------------------------------------------------------------- */

static void retry(void *arg)
{
    struct device *d = arg;
    struct world *w = d->world;
    struct buf out = {0};
    if (d->absent || d->link)
        return;
    d->worker = &w->workers[below(w, (unsigned)w->worker_count)];
    d->link = link_open(d, d->worker);
    if (!d->link) {
        event_plan(w, &d->retry, w->now_us + between(w, 20 * MS, 1 * S), NULL, retry, d);
        return;
    }
    trace(w, "device %s connects to %s", d->id, d->worker->name);
    d->heard_us = w->now_us;
    buf_reset(&d->in);
    mqtt_put_connect(&out,
                     &(struct mqtt_login){
                         .version = d->version, .device = d->id, .password = d->token, .keepalive_s = d->keepalive_s});
    send_buf(d, &out);
    event_plan(w, &d->ping, w->now_us + d->keepalive_s * 2 * S, NULL, ping, d);
}

void device_lose(struct device *d, enum device_loss how, int64_t away_us)
{
    struct buf out = {0};
    trace(d->world, "device %s goes (%d) for %.3f s", d->id, how, (double)away_us / 1e6);
    if (how == LOSS_DISCONNECT && d->link && d->connected) {
        mqtt_put_disconnect(&out);
        send_buf(d, &out);
    }
    go_away(d, how == LOSS_SILENT, away_us);
}

void device_settle(struct device *d)
{
    d->hasty = true;
    d->not_now = 0;
    if (d->absent || d->link)
        return;
    event_plan(d->world, &d->retry, d->world->now_us + between(d->world, 0, 50 * MS), NULL, retry, d);
}

/* --- life
 * ------------------------------------------------------------------------------------------------------------------------
 */

/* Numbers that no two devices of a tenant share, over a few blocks. */
static uint32_t seq_of(struct world *w, int index, unsigned blocks)
{
    uint32_t slot = (uint32_t)index * 23 % 1024;
    if (chance(w, 300))
        slot = (uint32_t)index % 1024; /* close together: single bytes */
    return below(w, blocks) * 1024 + slot;
}

static bool taken(const struct world *w, int count, uint32_t tenant, uint32_t seq)
{
    for (int i = 0; i < count; i++)
        if (w->devices[i].tenant == tenant && w->devices[i].seq == seq)
            return true;
    return false;
}

static void add_row(struct world *w, const struct device *d)
{
    struct row_device *row = table_add(&w->pg->devices);
    row->tenant = (int32_t)d->tenant;
    row->seq = (int32_t)d->seq;
    snprintf(row->id, sizeof row->id, "%s", d->id);
    for (size_t i = 0; i < w->pg->tenants.count; i++)
        if (w->pg->tenants.v[i].id == (int32_t)d->tenant && w->pg->tenants.v[i].next_seq <= (int32_t)d->seq)
            w->pg->tenants.v[i].next_seq = (int32_t)d->seq + 1;
}

void devices_init(struct world *w, int count)
{
    unsigned blocks = 1 + below(w, 3), tenants = chance(w, 300) ? DEVICE_TENANTS : 1;
    w->devices = calloc((size_t)count, sizeof *w->devices);
    w->device_count = count;
    if (!w->devices)
        abort();
    memset(w->pg->signing_key, 7, sizeof w->pg->signing_key);
    for (unsigned t = 1; t <= DEVICE_TENANTS; t++)
        *table_add(&w->pg->tenants) = (struct row_tenant){(int32_t)t, 0};
    for (int i = 0; i < count; i++) {
        struct device *d = &w->devices[i];
        d->world = w;
        d->index = i;
        d->tenant = 1 + below(w, tenants);
        do
            d->seq = seq_of(w, i, blocks);
        while (taken(w, i, d->tenant, d->seq));
        d->version = chance(w, 500) ? 5 : 4;
        d->keepalive_s = (uint16_t)between(w, 3, 15);
        d->absent = chance(w, 60);
        d->hasty = chance(w, 500);
        d->not_now = chance(w, 300) ? 200 : 0;
        snprintf(d->id, sizeof d->id, "d%u-%u", d->tenant, d->seq);
        struct credential c = {
            .key_id = 1, .tenant = d->tenant, .seq = d->seq, .issued_ms = 1, .expires_ms = INT64_MAX};
        credential_sign(d->token, &c, d->id, w->pg->signing_key);
        add_row(w, d);
        event_plan(w, &d->retry, w->now_us + between(w, 0, chance(w, 700) ? 300 * MS : 20 * S), NULL, retry, d);
    }
}

void devices_free(struct world *w)
{
    for (int i = 0; i < w->device_count; i++) {
        struct device *d = &w->devices[i];
        event_cancel(w, &d->think);
        event_cancel(w, &d->retry);
        event_cancel(w, &d->ping);
        if (d->link)
            link_free(d->link);
        buf_free(&d->in);
        free(d->done);
        free(d->tasks);
        free(d->acks);
        free(d->broken);
    }
    free(w->devices);
}
