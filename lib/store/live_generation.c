/* Whether this Redis holds what it was filled with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/live.h"
#include "lib/store/live_internal.h"

#define KEY "muster:generation"

/* Keeps run_id of "INFO server" while the connection stands: behind it is one Redis. */
static void keep_run_id(struct live *live, const redisReply *reply)
{
    struct slice text = reply_slice(reply);
    const char *at = text.len ? strstr((const char *)text.data, "run_id:") : NULL;
    at = at ? at + strlen("run_id:") : "";
    size_t len = strcspn(at, "\r\n");
    if (len >= sizeof live->run_id)
        len = 0;
    memcpy(live->run_id, at, len);
    live->run_id[len] = 0;
    live->run_id_of = len ? redis_connections(live->moves) : 0;
}

static void reply_info(void *arg, enum err err, const redisReply *reply)
{
    if (!err)
        keep_run_id(arg, reply);
}

/* What is sent behind it has the run_id when its answer comes. */
static void need_run_id(struct live *live)
{
    struct args a = {0};
    if (live->run_id_of && live->run_id_of == redis_connections(live->moves))
        return;
    live->run_id_of = 0;
    args_raw(&a, "INFO", 4);
    args_raw(&a, "server", 6);
    redis_command(live->moves, a.n, a.v, reply_info, live);
}

static void reply_get(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    struct slice id = reply_slice(reply);
    size_t len = strlen(r->live->run_id);
    bool same = !err && r->live->run_id_of && id.len == len && memcmp(id.data, r->live->run_id, len) == 0;
    r->fn.integer(r->arg, err, same);
    free(r);
}

void live_generation_get(struct live *live, live_int_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    need_run_id(live);
    args_raw(&a, "GET", 3);
    args_raw(&a, KEY, strlen(KEY));
    live_send(live, &a, reply_get, r);
}

void live_generation_begin(struct live *live)
{
    struct args a = {0};
    need_run_id(live);
    snprintf(live->filling, sizeof live->filling, "filling %lld.%llu", (long long)live->epoch,
             (unsigned long long)++live->fillings);
    args_raw(&a, "SET", 3);
    args_raw(&a, KEY, strlen(KEY));
    args_raw(&a, live->filling, strlen(live->filling));
    redis_command(live->moves, a.n, a.v, NULL, NULL);
}

static void reply_set(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    if (!err && (reply->type != REDIS_REPLY_INTEGER || reply->integer != 1))
        err = ERR_NOT_FOUND;
    r->fn.done(r->arg, err);
    free(r);
}

void live_generation_set(struct live *live, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_raw(&a, KEY, strlen(KEY));
    args_raw(&a, live->filling, strlen(live->filling));
    /* Another Redis since `begin`, or one that was asked nothing yet, has no such filling either. */
    args_raw(&a, live->run_id, live->run_id_of == redis_connections(live->moves) ? strlen(live->run_id) : 0);
    live_run(live, "filled", 1, &a, reply_set, r);
}
