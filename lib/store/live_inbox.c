/* Workers' inboxes, and the connection that takes from them. Redis gives what comes next to a take that waits there,
 * also when nobody is at the other end any more, which it may not know. So a connection bears a name of its process's
 * own, and has Redis close its forerunner before it takes: from then on nothing is given away, and what was can be
 * asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/store/live.h"
#include "lib/store/live_internal.h"

#define TAKE_WAIT_MAX 5000 /* ms; a Redis silent for longer may be lost (redis.c) */
#define NAME          "muster-worker-"

static const char *const class_names[LIVE_CLASSES] = {"urgent", "normal", "bulk"};

void args_inbox_key(struct args *a, uint16_t worker, enum live_class class)
{
    args_printf(a, "{w%u}:inbox:%s", worker, class_names[class]);
}

void live_inbox_push(struct live *live, uint16_t worker, enum live_class class, struct slice items, live_int_fn *done,
                     void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    args_raw(&a, "RPUSH", 5);
    args_inbox_key(&a, worker, class);
    args_slice(&a, items);
    live_send(live, &a, reply_integer, r);
}

struct tell_all {
    enum live_class class;
    size_t len;
    uint8_t items[];
};

static void reply_tell(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    const struct tell_all *t = (const struct tell_all *)r->extra;
    for (size_t i = 0; !err && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        uint16_t worker = reply_worker(reply->element[i]);
        if (worker && worker != LIVE_UNKNOWN_WORKER)
            live_inbox_push(r->live, worker, t->class, (struct slice){t->items, t->len}, NULL, NULL);
    }
    free(r);
}

void live_tell_workers(struct live *live, enum live_class class, struct slice items)
{
    struct args a = {0};
    struct request *r = request_new(live, NULL, sizeof(struct tell_all) + items.len);
    struct tell_all *t = (struct tell_all *)r->extra;
    t->class = class;
    t->len = items.len;
    memcpy(t->items, items.data, items.len);
    args_raw(&a, "SMEMBERS", 8);
    args_raw(&a, "workers", 7);
    live_send(live, &a, reply_tell, r);
}

void live_inbox_length(struct live *live, uint16_t worker, enum live_class class, live_int_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    args_raw(&a, "LLEN", 4);
    args_inbox_key(&a, worker, class);
    live_send(live, &a, reply_integer, r);
}

/* --- the connection that takes ------------------------------------------------------------------------------------ */

void live_take_as(struct live *live, const char *name)
{
    int n = snprintf(live->taker, sizeof live->taker, NAME "%s", name);
    if (n < 0 || (size_t)n >= sizeof live->taker)
        abort(); /* ours to bound */
    for (char *c = live->taker; *c; c++)
        if (*c <= ' ' || *c > '~')
            *c = '-'; /* Redis takes no others in a name */
}

uint64_t live_taker(const struct live *live)
{
    return live->takes && redis_up(live->takes) ? redis_connections(live->takes) : 0;
}

static void say(struct live *live, const struct args *a, redis_done_fn *done)
{
    redis_greeting(live->takes, NULL, 0, a->n, a->v, done, live);
}

/* Whoever bears the name and this number is gone. */
static void greeted(struct live *live, bool good)
{
    if (!live->takes)
        return; /* live_free ends the greeting */
    if (good)
        live->taker_id = live->taker_next;
    redis_greeted(live->takes, good);
}

static void reply_killed(void *arg, enum err err, const redisReply *reply)
{
    (void)reply;
    greeted(arg, !err);
}

/* A Redis that began anew gives its numbers to others. */
static void reply_forerunner(void *arg, enum err err, const redisReply *reply)
{
    struct live *live = arg;
    struct slice line = reply_slice(reply);
    const char *name = err || !line.len ? NULL : strstr((const char *)line.data, live->taker);
    struct args a = {0};
    if (!name || name[strlen(live->taker)] != ' ') {
        greeted(live, !err);
        return;
    }
    log_info("taker_cut_off", "client=%lld", (long long)live->taker_id);
    args_client(&a, "KILL", live->taker_id);
    say(live, &a, reply_killed);
}

static void reply_named(void *arg, enum err err, const redisReply *reply)
{
    struct live *live = arg;
    struct args a = {0};
    (void)reply;
    if (err || !live->taker_next || !live->taker_id) {
        greeted(live, !err && live->taker_next);
        return;
    }
    args_client(&a, "LIST", live->taker_id);
    say(live, &a, reply_forerunner);
}

static void reply_id(void *arg, enum err err, const redisReply *reply)
{
    struct live *live = arg;
    live->taker_next = !err && reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0;
}

static void greet(void *arg)
{
    struct live *live = arg;
    struct args id = {0}, name = {0};
    args_raw(&id, "CLIENT", 6);
    args_raw(&id, "ID", 2);
    say(live, &id, reply_id);
    args_raw(&name, "CLIENT", 6);
    args_raw(&name, "SETNAME", 7);
    args_raw(&name, live->taker, strlen(live->taker));
    say(live, &name, reply_named);
}

static void need_taker(struct live *live)
{
    if (live->takes)
        return;
    if (!*live->taker)
        abort(); /* ours: live_take_as comes first */
    live->takes = redis_new(live->loop, live->url);
    if (!live->takes) {
        log_error("out_of_memory", "where=live_inbox_take");
        abort();
    }
    redis_on_connect(live->takes, greet, live);
}

/* --- taking ------------------------------------------------------------------------------------------------------- */

static enum live_class class_of_key(const redisReply *key)
{
    struct slice name = reply_slice(key);
    const char *colon = name.len ? strrchr((const char *)name.data, ':') : NULL;
    for (int class = 0; colon && class < LIVE_CLASSES; class ++)
        if (strcmp(colon + 1, class_names[class]) == 0)
            return (enum live_class) class;
    return LIVE_NORMAL;
}

static void reply_take(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    const redisReply *list = NULL;
    if (!err && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
        list = reply->element[1];
    size_t n = list && list->type == REDIS_REPLY_ARRAY ? list->elements : 0;
    struct slice *entries = calloc(n + 1, sizeof *entries);
    if (!entries)
        abort();
    for (size_t i = 0; i < n; i++)
        entries[i] = reply_slice(list->element[i]);
    r->fn.take(r->arg, err, n ? class_of_key(reply->element[0]) : LIVE_URGENT, entries, n);
    free(entries);
    free(r);
}

void live_inbox_take(struct live *live, uint16_t worker, int classes, int max, int64_t wait_ms, live_take_fn *done,
                     void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.take = done;
    if (wait_ms > TAKE_WAIT_MAX)
        wait_ms = TAKE_WAIT_MAX;
    need_taker(live);
    args_raw(&a, "BLMPOP", 6);
    args_printf(&a, "%lld.%03lld", (long long)(wait_ms / 1000), (long long)(wait_ms % 1000));
    args_printf(&a, "%d", classes);
    for (int class = 0; class < classes && class < LIVE_CLASSES; class ++)
        args_inbox_key(&a, worker, (enum live_class) class);
    args_raw(&a, "LEFT", 4);
    args_raw(&a, "COUNT", 5);
    args_printf(&a, "%d", max);
    redis_command(live->takes, a.n, a.v, reply_take, r);
}

void live_take_look(struct live *live)
{
    if (live->takes)
        redis_receive(live->takes);
}
