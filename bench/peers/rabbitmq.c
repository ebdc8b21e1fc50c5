/* RabbitMQ by AMQP 0-9-1 (amqp-xml-doc0-9-1): a durable queue, persistent messages, publisher confirms, a consumer that
 * acknowledges itself, many deliveries at once. */
#include <string.h>

#include "bench/peers/run.h"
#include "bench/peers/wire.h"

#define QUEUE_PREFIX "jobs-"
#define FRAME_END    0xCE
#define FRAME_MAX    131072
#define DURABLE      2
#define CHANNEL      1
#define METHOD(c, m) ((uint32_t)(c) << 16 | (m))

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3, FRAME_HEARTBEAT = 8 };

enum {
    CONNECTION_START = METHOD(10, 10),
    CONNECTION_START_OK = METHOD(10, 11),
    CONNECTION_TUNE = METHOD(10, 30),
    CONNECTION_TUNE_OK = METHOD(10, 31),
    CONNECTION_OPEN = METHOD(10, 40),
    CONNECTION_OPEN_OK = METHOD(10, 41),
    CHANNEL_OPEN = METHOD(20, 10),
    CHANNEL_OPEN_OK = METHOD(20, 11),
    CHANNEL_CLOSE = METHOD(20, 40),
    CHANNEL_CLOSE_OK = METHOD(20, 41),
    QUEUE_DECLARE = METHOD(50, 10),
    QUEUE_DECLARE_OK = METHOD(50, 11),
    BASIC_QOS = METHOD(60, 10),
    BASIC_QOS_OK = METHOD(60, 11),
    BASIC_CONSUME = METHOD(60, 20),
    BASIC_CONSUME_OK = METHOD(60, 21),
    BASIC_PUBLISH = METHOD(60, 40),
    BASIC_DELIVER = METHOD(60, 60),
    BASIC_ACK = METHOD(60, 80),
    CONFIRM_SELECT = METHOD(85, 10),
    CONFIRM_SELECT_OK = METHOD(85, 11),
};

struct frame {
    uint8_t type;
    uint32_t method;   /* of a method frame */
    struct slice body; /* what follows the method; borrowed until the next turn */
};

static void begin(struct buf *to, uint8_t type, uint16_t channel, uint32_t size)
{
    buf_put_u8(to, type);
    buf_put_u16be(to, channel);
    buf_put_u32be(to, size);
}

static void put_method(struct wire *w, uint16_t channel, uint32_t method, const struct buf *args)
{
    begin(&w->out, FRAME_METHOD, channel, (uint32_t)(4 + buf_len(args)));
    buf_put_u32be(&w->out, method);
    buf_put(&w->out, buf_head(args), buf_len(args));
    buf_put_u8(&w->out, FRAME_END);
}

static void short_string(struct buf *to, const char *s)
{
    buf_put_u8(to, (uint8_t)strlen(s));
    buf_put_str(to, s);
}

static void long_string(struct buf *to, const void *s, size_t len)
{
    buf_put_u32be(to, (uint32_t)len);
    buf_put(to, s, len);
}

/* The next frame that says something, if it is here whole. */
static bool next(struct wire *w, struct frame *f)
{
    for (;;) {
        struct slice in = buf_slice(&w->in), whole;
        uint16_t channel;
        uint32_t size;
        uint8_t end;
        if (!slice_u8(&in, &f->type) || !slice_u16be(&in, &channel) || !slice_u32be(&in, &size) ||
            !slice_bytes(&in, size, &whole) || !slice_u8(&in, &end))
            return false;
        if (end != FRAME_END || (f->type == FRAME_METHOD && !slice_u32be(&whole, &f->method)))
            die("RabbitMQ: a frame of type %u is malformed", f->type);
        f->body = whole;
        w->in.start += buf_len(&w->in) - in.len;
        if (f->type != FRAME_HEARTBEAT)
            return true;
    }
}

static void await(struct wire *w, uint32_t method)
{
    struct frame f;

    while (!next(w, &f))
        wire_turn(w);
    if (f.type != FRAME_METHOD || f.method != method)
        die("RabbitMQ: %u.%u where %u.%u was due: %.*s", f.method >> 16, f.method & 0xffff, method >> 16,
            method & 0xffff, (int)f.body.len, f.body.data);
}

/* Sends `method`, empties `args`, waits for `answer`. */
static void call(struct wire *w, uint16_t channel, uint32_t method, struct buf *args, uint32_t answer)
{
    put_method(w, channel, method, args);
    buf_reset(args);
    await(w, answer);
}

/* A queue of each kind: a name cannot change its kind. */
static void put_queue(struct buf *to, const char *kind)
{
    buf_put_u8(to, (uint8_t)(strlen(QUEUE_PREFIX) + strlen(kind)));
    buf_put_str(to, QUEUE_PREFIX);
    buf_put_str(to, kind);
}

static void open_queue(struct wire *w, struct buf *args, const char *kind)
{
    struct buf table = {0};

    short_string(&table, "x-queue-type");
    buf_put_u8(&table, 'S');
    long_string(&table, kind, strlen(kind));
    buf_put_u16be(args, 0);
    put_queue(args, kind);
    buf_put_u8(args, DURABLE);
    long_string(args, buf_head(&table), buf_len(&table));
    call(w, CHANNEL, QUEUE_DECLARE, args, QUEUE_DECLARE_OK);
    buf_free(&table);
}

/* As guest on "/", one channel, the queue declared. */
static void connect_to(struct wire *w, struct buf *args, const struct run *r)
{
    static const char credentials[] = "\0guest\0guest";

    wire_open(w, r->at);
    buf_put(&w->out, "AMQP\0\0\x09\x01", 8);
    await(w, CONNECTION_START);
    buf_put_u32be(args, 0); /* no client properties */
    short_string(args, "PLAIN");
    long_string(args, credentials, sizeof credentials - 1);
    short_string(args, "en_US");
    call(w, 0, CONNECTION_START_OK, args, CONNECTION_TUNE);
    buf_put_u16be(args, CHANNEL);
    buf_put_u32be(args, FRAME_MAX);
    buf_put_u16be(args, 0); /* no heartbeats */
    put_method(w, 0, CONNECTION_TUNE_OK, args);
    buf_reset(args);
    short_string(args, "/");
    buf_put_u16be(args, 0);
    call(w, 0, CONNECTION_OPEN, args, CONNECTION_OPEN_OK);
    short_string(args, "");
    call(w, CHANNEL, CHANNEL_OPEN, args, CHANNEL_OPEN_OK);
    open_queue(w, args, r->kind);
}

/* When the channel is closed all that was sent on it has been handled. */
static void disconnect(struct wire *w, struct buf *args)
{
    buf_put_u16be(args, 200);
    short_string(args, "done");
    buf_put_u32be(args, 0);
    call(w, CHANNEL, CHANNEL_CLOSE, args, CHANNEL_CLOSE_OK);
    buf_free(args);
    wire_close(w);
}

/* basic.publish, content header, content body. */
static void publish(struct wire *w, const struct buf *args, uint32_t number)
{
    char job[JOB_BYTES];

    job_write(job, number);
    put_method(w, CHANNEL, BASIC_PUBLISH, args);
    begin(&w->out, FRAME_HEADER, CHANNEL, 15);
    buf_put_u32be(&w->out, METHOD(60, 0));
    buf_put_u32be(&w->out, 0);
    buf_put_u32be(&w->out, JOB_BYTES);
    buf_put_u16be(&w->out, 0x1000); /* delivery mode follows: */
    buf_put_u8(&w->out, 2);         /* persistent */
    buf_put_u8(&w->out, FRAME_END);
    begin(&w->out, FRAME_BODY, CHANNEL, JOB_BYTES);
    buf_put(&w->out, job, JOB_BYTES);
    buf_put_u8(&w->out, FRAME_END);
}

/* Jobs confirmed by a basic.ack, of which single ones may come in any order. */
static uint32_t confirmed(struct frame *f, uint8_t *open, uint32_t *floor)
{
    uint32_t high, tag, count = 0;
    uint8_t multiple;

    if (f->type != FRAME_METHOD || f->method != BASIC_ACK || !slice_u32be(&f->body, &high) ||
        !slice_u32be(&f->body, &tag) || !slice_u8(&f->body, &multiple))
        die("RabbitMQ: %u.%u instead of a confirm", f->method >> 16, f->method & 0xffff);
    for (uint32_t i = multiple & 1 ? *floor : tag - 1; i < tag; i++) {
        count += open[i];
        open[i] = 0;
    }
    if (multiple & 1)
        *floor = tag;
    return count;
}

void rabbitmq_enqueue(struct run *r)
{
    struct wire w;
    struct buf args = {0};
    struct frame f;
    uint32_t sent = 0, accepted = 0, floor = 0;

    connect_to(&w, &args, r);
    buf_put_u8(&args, 0);
    call(&w, CHANNEL, CONFIRM_SELECT, &args, CONFIRM_SELECT_OK);
    buf_put_u16be(&args, 0); /* basic.publish to the default exchange, the same each time */
    short_string(&args, "");
    put_queue(&args, r->kind);
    buf_put_u8(&args, 0);
    run_begin(r);
    memset(r->done, 1, r->jobs); /* here: not confirmed yet */
    while (accepted < r->jobs) {
        for (; sent < r->jobs && sent - accepted < r->window; sent++)
            publish(&w, &args, sent);
        wire_turn(&w);
        while (next(&w, &f))
            accepted += confirmed(&f, r->done, &floor);
    }
    buf_reset(&args);
    disconnect(&w, &args);
}

static void consume(struct wire *w, struct buf *args, const struct run *r)
{
    buf_put_u32be(args, 0);
    buf_put_u16be(args, (uint16_t)r->window);
    buf_put_u8(args, 0);
    call(w, CHANNEL, BASIC_QOS, args, BASIC_QOS_OK);
    buf_put_u16be(args, 0);
    put_queue(args, r->kind);
    short_string(args, "c");
    buf_put_u8(args, 0);
    buf_put_u32be(args, 0);
    put_method(w, CHANNEL, BASIC_CONSUME, args);
    buf_reset(args);
}

/* Acknowledges this delivery and all before it. */
static void acknowledge(struct wire *w, struct buf *args, uint32_t tag)
{
    buf_put_u32be(args, 0);
    buf_put_u32be(args, tag);
    buf_put_u8(args, 1);
    put_method(w, CHANNEL, BASIC_ACK, args);
    buf_reset(args);
}

void rabbitmq_process(struct run *r)
{
    struct wire w;
    struct buf args = {0};
    struct frame f;
    uint32_t taken = 0;

    connect_to(&w, &args, r);
    run_begin(r);
    consume(&w, &args, r);
    while (taken < r->jobs) {
        wire_turn(&w);
        while (next(&w, &f)) {
            if (f.type == FRAME_METHOD && f.method != BASIC_DELIVER && f.method != BASIC_CONSUME_OK)
                die("RabbitMQ: %u.%u instead of a delivery", f.method >> 16, f.method & 0xffff);
            if (f.type != FRAME_BODY)
                continue;
            run_completed(r, job_read(r, f.body.data, f.body.len));
            if (++taken % r->batch == 0 || taken == r->jobs)
                acknowledge(&w, &args, taken);
        }
    }
    disconnect(&w, &args);
}
