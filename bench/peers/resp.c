#include "bench/peers/resp.h"

#include <string.h>

#include "bench/peers/run.h"

void resp_open(struct resp *r, const char *at)
{
    wire_open(&r->wire, at);
    r->reader = redisReaderCreate();
    if (!r->reader)
        die("no memory");
}

void resp_close(struct resp *r)
{
    redisReaderFree(r->reader);
    wire_close(&r->wire);
}

void resp_command(struct resp *r, uint32_t args)
{
    buf_printf(&r->wire.out, "*%u\r\n", args);
}

void resp_arg(struct resp *r, const void *data, size_t len)
{
    buf_printf(&r->wire.out, "$%zu\r\n", len);
    buf_put(&r->wire.out, data, len);
    buf_put(&r->wire.out, "\r\n", 2);
}

void resp_word(struct resp *r, const char *word)
{
    resp_arg(r, word, strlen(word));
}

redisReply *resp_reply(struct resp *r)
{
    void *found = NULL;

    if (buf_len(&r->wire.in) > 0) {
        if (redisReaderFeed(r->reader, (const char *)buf_head(&r->wire.in), buf_len(&r->wire.in)) != REDIS_OK)
            die("no memory");
        buf_consume(&r->wire.in, buf_len(&r->wire.in));
    }
    if (redisReaderGetReply(r->reader, &found) != REDIS_OK)
        die("Redis: %s", r->reader->errstr);
    redisReply *reply = found;
    if (reply && reply->type == REDIS_REPLY_ERROR)
        die("Redis: %s", reply->str);
    return reply;
}

void resp_wait(struct resp *r)
{
    redisReply *reply;

    while (!(reply = resp_reply(r)))
        wire_turn(&r->wire);
    freeReplyObject(reply);
}
