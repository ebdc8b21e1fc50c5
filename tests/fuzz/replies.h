/* In place of a connection to Redis: requests wait for the replies that the target gives them, in order. For one source
 * file of a program: it defines redis_….
 * Owns: the requests under way. May call: hiredis, tests/fuzz/input. Loop rule: none. */
#ifndef MUSTER_TESTS_FUZZ_REPLIES_H
#define MUSTER_TESTS_FUZZ_REPLIES_H

#include <hiredis/hiredis.h>

#include "lib/store/redis.h"
#include "tests/fuzz/input.h"

#define REPLIES_MAX      4096
#define REPLIES_ELEMENTS 65536

struct replies_pending {
    redis_done_fn *done;
    void *arg;
};

static struct replies_pending replies_pending[REPLIES_MAX];
static size_t replies_first, replies_due;

struct redis *redis_new(struct ev_loop *loop, const char *url)
{
    static int one;
    (void)loop, (void)url;
    return (struct redis *)(void *)&one;
}

void redis_free(struct redis **redis)
{
    *redis = NULL;
}

bool redis_up(const struct redis *redis)
{
    (void)redis;
    return true;
}

void redis_on_change(struct redis *redis, void (*fn)(void *arg, bool up), void *arg)
{
    (void)redis, (void)fn, (void)arg;
}

void redis_command(struct redis *redis, int argc, const struct slice *argv, redis_done_fn *done, void *arg)
{
    (void)redis;
    for (int i = 0; i < argc; i++)
        touch(argv[i]);
    check(replies_due < REPLIES_MAX);
    replies_pending[(replies_first + replies_due++) % REPLIES_MAX] = (struct replies_pending){done, arg};
}

void redis_script(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                  redis_done_fn *done, void *arg)
{
    check(script && keys <= argc);
    redis_command(redis, argc, argv, done, arg);
}

/* A connection comes up without a greeting. */
void redis_receive(struct redis *redis)
{
    (void)redis; /* the test answers when it likes */
}

void redis_on_connect(struct redis *redis, void (*fn)(void *arg), void *arg)
{
    (void)redis, (void)fn, (void)arg;
}

void redis_greeted(struct redis *redis, bool good)
{
    (void)redis, (void)good;
}

uint64_t redis_connections(const struct redis *redis)
{
    (void)redis;
    return 1;
}

int redis_database(const struct redis *redis)
{
    (void)redis;
    return 0;
}

void redis_greeting(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                    redis_done_fn *done, void *arg)
{
    (void)script, (void)keys;
    redis_command(redis, argc, argv, done, arg);
}

void redis_subscribe(struct redis *redis, const char *channel, void (*fn)(void *arg, struct slice message), void *arg)
{
    (void)redis, (void)channel, (void)fn, (void)arg;
}

/* As redis.c: an error of Redis' comes as one, without the reply; NULL: Redis is away. */
static inline void replies_answer(const redisReply *reply)
{
    struct replies_pending p = replies_pending[replies_first];
    replies_first = (replies_first + 1) % REPLIES_MAX;
    replies_due--;
    bool refused = reply && reply->type == REDIS_REPLY_ERROR;
    enum err err = !reply ? ERR_UNAVAILABLE : refused ? ERR_INVALID : ERR_OK;
    if (p.done)
        p.done(p.arg, err, err ? NULL : reply);
}

/* As redis.c: no reply is longer. */
static void *(*replies_create)(const redisReadTask *task, int elements);
static inline void *replies_create_bound(const redisReadTask *task, int elements)
{
    return elements > REPLIES_ELEMENTS ? NULL : replies_create(task, elements);
}

/* Returns owned, for redisReaderFree. */
static inline redisReader *replies_reader(void)
{
    static redisReplyObjectFunctions functions;
    redisReader *reader = redisReaderCreate();
    check(reader);
    functions = *reader->fn;
    replies_create = functions.createArray;
    functions.createArray = replies_create_bound;
    reader->fn = &functions;
    return reader;
}

#endif
