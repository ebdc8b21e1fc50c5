/* A queue of Redis lists as one would write it by hand: LPUSH of many jobs at once, LMOVE to a list of what is being
 * worked on, LREM when it is done. A worker that dies leaves its jobs in that list. Everything is pipelined. */
#include "bench/peers/resp.h"
#include "bench/peers/run.h"

#define QUEUE   "queue"
#define WORKING "working"

static void push(struct resp *redis, uint32_t from, uint32_t to)
{
    char job[JOB_BYTES];

    resp_command(redis, 2 + to - from);
    resp_word(redis, "LPUSH");
    resp_word(redis, QUEUE);
    for (uint32_t i = from; i < to; i++) {
        job_write(job, i);
        resp_arg(redis, job, JOB_BYTES);
    }
}

void redis_lists_enqueue(struct run *r)
{
    struct resp redis;
    uint32_t sent = 0, accepted = 0;
    redisReply *reply;

    resp_open(&redis, r->at);
    run_begin(r);
    while (accepted < r->jobs) {
        while (sent < r->jobs && sent - accepted < r->window) {
            uint32_t to = r->jobs - sent < r->batch ? r->jobs : sent + r->batch;
            push(&redis, sent, to);
            sent = to;
        }
        wire_turn(&redis.wire);
        while ((reply = resp_reply(&redis))) {
            accepted += r->jobs - accepted < r->batch ? r->jobs - accepted : r->batch;
            freeReplyObject(reply);
        }
    }
    resp_close(&redis);
}

static void take(struct resp *redis)
{
    resp_command(redis, 5);
    resp_word(redis, "LMOVE");
    resp_word(redis, QUEUE);
    resp_word(redis, WORKING);
    resp_word(redis, "RIGHT");
    resp_word(redis, "LEFT");
}

/* From the right: what was taken first is done first, so it is found at once. */
static void complete(struct resp *redis, const redisReply *job)
{
    resp_command(redis, 4);
    resp_word(redis, "LREM");
    resp_word(redis, WORKING);
    resp_word(redis, "-1");
    resp_arg(redis, job->str, (size_t)job->len);
}

void redis_lists_process(struct run *r)
{
    struct resp redis;
    uint32_t asked = 0, taken = 0, completed = 0;
    redisReply *reply;

    resp_open(&redis, r->at);
    run_begin(r);
    while (completed < r->jobs) {
        for (; asked < r->jobs && asked - completed < r->window; asked++)
            take(&redis);
        wire_turn(&redis.wire);
        while ((reply = resp_reply(&redis))) {
            if (reply->type == REDIS_REPLY_STRING) { /* LMOVE's */
                run_completed(r, job_read(r, reply->str, (size_t)reply->len));
                complete(&redis, reply);
                taken++;
            } else if (reply->type == REDIS_REPLY_INTEGER && reply->integer == 1) { /* LREM's */
                completed++;
            } else {
                die("a job is missing in %s after %u were taken and %u completed", QUEUE, taken, completed);
            }
            freeReplyObject(reply);
        }
    }
    resp_close(&redis);
}
