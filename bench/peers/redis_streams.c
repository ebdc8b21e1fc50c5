/* A queue of a Redis stream with a consumer group: XADD, XREADGROUP with COUNT, XACK of all that were read. Everything
 * is pipelined. What was acknowledged stays in the stream: trimming it would cost on top. */
#include "bench/peers/resp.h"
#include "bench/peers/run.h"

#define STREAM "stream"
#define GROUP  "workers"

static void make_group(struct resp *redis)
{
    resp_command(redis, 6);
    resp_word(redis, "XGROUP");
    resp_word(redis, "CREATE");
    resp_word(redis, STREAM);
    resp_word(redis, GROUP);
    resp_word(redis, "0");
    resp_word(redis, "MKSTREAM");
    resp_wait(redis);
}

static void add(struct resp *redis, uint32_t number)
{
    char job[JOB_BYTES];

    job_write(job, number);
    resp_command(redis, 5);
    resp_word(redis, "XADD");
    resp_word(redis, STREAM);
    resp_word(redis, "*");
    resp_word(redis, "j");
    resp_arg(redis, job, JOB_BYTES);
}

void redis_streams_enqueue(struct run *r)
{
    struct resp redis;
    uint32_t sent = 0, accepted = 0;
    redisReply *reply;

    resp_open(&redis, r->at);
    make_group(&redis);
    run_begin(r);
    while (accepted < r->jobs) {
        for (; sent < r->jobs && sent - accepted < r->window; sent++)
            add(&redis, sent);
        wire_turn(&redis.wire);
        for (; (reply = resp_reply(&redis)); accepted++)
            freeReplyObject(reply);
    }
    resp_close(&redis);
}

static void read_some(struct resp *redis, uint32_t count)
{
    char text[16];

    snprintf(text, sizeof text, "%u", count);
    resp_command(redis, 9);
    resp_word(redis, "XREADGROUP");
    resp_word(redis, "GROUP");
    resp_word(redis, GROUP);
    resp_word(redis, "one");
    resp_word(redis, "COUNT");
    resp_word(redis, text);
    resp_word(redis, "STREAMS");
    resp_word(redis, STREAM);
    resp_word(redis, ">");
}

/* XREADGROUP answers [[stream, [[id, [field, value]], …]]]. */
static void acknowledge(struct run *r, struct resp *redis, const redisReply *reply)
{
    const redisReply *stream = reply->elements == 1 ? reply->element[0] : NULL;
    const redisReply *entries = stream && stream->elements == 2 ? stream->element[1] : NULL;

    if (!entries)
        die("Redis: XREADGROUP answers something else");
    resp_command(redis, 3 + (uint32_t)entries->elements);
    resp_word(redis, "XACK");
    resp_word(redis, STREAM);
    resp_word(redis, GROUP);
    for (size_t i = 0; i < entries->elements; i++) {
        const redisReply *entry = entries->element[i];
        const redisReply *id = entry->element[0], *job = entry->element[1]->element[1];
        run_completed(r, job_read(r, job->str, (size_t)job->len));
        resp_arg(redis, id->str, (size_t)id->len);
    }
}

void redis_streams_process(struct run *r)
{
    struct resp redis;
    uint32_t asked = 0, completed = 0;
    redisReply *reply;

    resp_open(&redis, r->at);
    run_begin(r);
    while (completed < r->jobs) {
        for (; asked < r->jobs && asked - completed < r->window; asked += r->batch)
            read_some(&redis, r->batch);
        wire_turn(&redis.wire);
        while ((reply = resp_reply(&redis))) {
            if (reply->type == REDIS_REPLY_ARRAY)
                acknowledge(r, &redis, reply);
            else if (reply->type == REDIS_REPLY_INTEGER)
                completed += (uint32_t)reply->integer;
            else
                die("the stream is at its end after %u jobs were completed", completed);
            freeReplyObject(reply);
        }
    }
    resp_close(&redis);
}
