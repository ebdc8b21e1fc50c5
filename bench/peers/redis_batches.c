/* The same lists, taken by a script a batch at a time: one call moves many jobs to a set of what is being worked on,
 * one SREM completes as many, each by its own name. Faster than LMOVE and LREM, and as safe; seldom seen in the wild.
 */
#include <string.h>

#include "bench/peers/resp.h"
#include "bench/peers/run.h"

static const char TAKE[] = "local jobs = redis.call('RPOP', KEYS[1], ARGV[1])\n"
                           "if jobs then redis.call('SADD', KEYS[2], unpack(jobs)) end\n"
                           "return jobs";

static void take(struct resp *redis, const char *sha, uint32_t batch)
{
    char count[16];

    snprintf(count, sizeof count, "%u", batch);
    resp_command(redis, 6);
    resp_word(redis, "EVALSHA");
    resp_word(redis, sha);
    resp_word(redis, "2");
    resp_word(redis, "queue");
    resp_word(redis, "working");
    resp_word(redis, count);
}

static void complete(struct run *r, struct resp *redis, const redisReply *jobs)
{
    resp_command(redis, 2 + (uint32_t)jobs->elements);
    resp_word(redis, "SREM");
    resp_word(redis, "working");
    for (size_t i = 0; i < jobs->elements; i++) {
        const redisReply *job = jobs->element[i];
        run_completed(r, job_read(r, job->str, (size_t)job->len));
        resp_arg(redis, job->str, (size_t)job->len);
    }
}

/* Stores the script; its name goes to `sha`. */
static void load(struct resp *redis, char sha[41])
{
    redisReply *reply;

    resp_command(redis, 3);
    resp_word(redis, "SCRIPT");
    resp_word(redis, "LOAD");
    resp_word(redis, TAKE);
    while (!(reply = resp_reply(redis)))
        wire_turn(&redis->wire);
    if (reply->type != REDIS_REPLY_STRING || reply->len != 40)
        die("Redis: SCRIPT LOAD answers no name");
    memcpy(sha, reply->str, 41);
    freeReplyObject(reply);
}

void redis_batches_process(struct run *r)
{
    struct resp redis;
    uint32_t asked = 0, completed = 0;
    char sha[41];
    redisReply *reply;

    resp_open(&redis, r->at);
    load(&redis, sha);
    run_begin(r);
    while (completed < r->jobs) {
        for (; asked < r->jobs && asked - completed < r->window; asked += r->batch)
            take(&redis, sha, r->batch);
        wire_turn(&redis.wire);
        while ((reply = resp_reply(&redis))) {
            if (reply->type == REDIS_REPLY_ARRAY)
                complete(r, &redis, reply);
            else if (reply->type == REDIS_REPLY_INTEGER)
                completed += (uint32_t)reply->integer;
            else
                die("a job is missing after %u were completed", completed);
            freeReplyObject(reply);
        }
    }
    resp_close(&redis);
}
