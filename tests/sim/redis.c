#include "tests/sim/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/list.h"
#include "lib/store/redis.h"
#include "tests/sim/fault.h"
#include "tests/sim/loop.h"
#include "tests/sim/net.h"
#include "tests/sim/oracle.h"
#include "tests/sim/redis_model.h"
#include "tests/sim/redis_parts.h"

#define BACKOFF_MIN_US  (20 * MS)
#define BACKOFF_MAX_US  (1 * S)
#define ANSWER_LIMIT_US (10 * S) /* as lib/store/redis.c */
#define GHOST_LATE_US   (3 * S)  /* what a client has given up may be carried out so much later */

static struct redis_model *model(struct world *w)
{
    return w->redis_model;
}

static bool is(struct slice s, const char *word)
{
    return s.len == strlen(word) && memcmp(s.data, word, s.len) == 0;
}

/* --- requests ---------------------------------------------------------------------------------------------------- */

static void client_leave(struct client *c)
{
    if (c->redis || c->ghosts)
        return;
    list_remove(&c->link);
    free(c);
}

void rq_free(struct rq *q)
{
    if (!q->redis && q->client) {
        q->client->ghosts--;
        client_leave(q->client);
    }
    event_cancel(q->world, &q->event);
    event_cancel(q->world, &q->timeout);
    list_remove(&q->link);
    list_remove(&q->waiting);
    reply_free(q->reply);
    free(q);
}

static struct rq *rq_new(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv)
{
    size_t bytes = 0;
    for (int i = 0; i < argc; i++)
        bytes += argv[i].len;
    struct rq *q = calloc(1, sizeof *q + (size_t)argc * sizeof *argv + bytes);
    if (!q)
        abort();
    uint8_t *at = (uint8_t *)&q->argv[argc];
    for (int i = 0; i < argc; i++) {
        if (argv[i].len)
            memcpy(at, argv[i].data, argv[i].len);
        q->argv[i] = (struct slice){at, argv[i].len};
        at += argv[i].len;
    }
    q->redis = redis;
    q->world = redis->process->world;
    q->script = script;
    q->keys = keys;
    q->argc = argc;
    list_init(&q->link);
    list_init(&q->waiting);
    return q;
}

static void end(struct rq *q, enum err err)
{
    redis_done_fn *done = q->done;
    void *arg = q->arg;
    redisReply *reply = q->reply;
    q->reply = NULL;
    rq_free(q);
    if (done)
        done(arg, err, err ? NULL : reply);
    reply_free(reply);
}

static void answered(void *arg)
{
    struct rq *q = arg;
    struct redis *redis = q->redis;
    redis->heard_us = q->world->now_us;
    end(q, ERR_OK);
}

static void send_answer(struct rq *q)
{
    struct world *w = q->world;
    event_cancel(w, &q->timeout);
    list_remove(&q->waiting);
    if (!q->redis || q->redis->broken) {
        if (!q->redis)
            rq_free(q);
        return;
    }
    event_plan(w, &q->event, wire_arrival(w, &q->redis->back), q->redis->process, answered, q);
}

/* Whoever waits longest for what has come gets it. */
static void serve_blocked(struct world *w)
{
    list_for_each (l, tmp, &server_of(w)->blocked) {
        struct rq *q = container_of(l, struct rq, waiting);
        redisReply *reply = redis_model_command(model(w), q->argc, q->argv);
        if (reply->type == REDIS_REPLY_NIL) {
            reply_free(reply);
            continue;
        }
        q->reply = reply;
        send_answer(q);
    }
}

static void block_over(void *arg)
{
    struct rq *q = arg;
    q->reply = reply_nil();
    send_answer(q);
}

static void spread(struct world *w, struct slice text);

/* CLIENT KILL: what it has sent and Redis has not read is thrown away. */
static void kill_client(struct world *w, uint64_t id)
{
    list_for_each (l, tmp, &server_of(w)->clients) {
        struct client *c = container_of(l, struct client, link);
        if (c->id != id)
            continue;
        if (c->redis) {
            list_for_each (k, tmp2, &c->redis->pending) {
                struct rq *q = container_of(k, struct rq, link);
                if (q->executed)
                    continue;
                event_cancel(w, &q->event);
                q->executed = true; /* or never */
            }
            break_connection(c->redis);
            return;
        }
        c->ghosts++; /* it must not go while it is looked at */
        list_for_each (k, tmp2, &server_of(w)->ghosts) {
            struct rq *q = container_of(k, struct rq, link);
            if (q->client == c)
                rq_free(q);
        }
        c->ghosts--;
        client_leave(c);
        return;
    }
}

/* `only` 0: all. */
static redisReply *list_clients(struct world *w, uint64_t only)
{
    struct buf text = {0};
    list_for_each (l, tmp, &server_of(w)->clients) {
        const struct client *c = container_of(l, struct client, link);
        if (!only || only == c->id)
            buf_printf(&text, "id=%llu addr=sim name=%s age=0 db=0\n", (unsigned long long)c->id, c->name);
    }
    redisReply *r = reply_text(buf_slice(&text));
    buf_free(&text);
    return r;
}

static redisReply *client_command(struct rq *q)
{
    struct world *w = q->world;
    if (is(q->argv[1], "ID"))
        return reply_number((int64_t)q->client->id);
    if (is(q->argv[1], "LIST"))
        return list_clients(w, is(q->argv[2], "ID") ? slice_number(q->argv[3]) : 0);
    if (is(q->argv[1], "KILL"))
        kill_client(w, slice_number(q->argv[3]));
    else if (is(q->argv[1], "SETNAME"))
        snprintf(q->client->name, sizeof q->client->name, "%.*s", (int)q->argv[2].len, (const char *)q->argv[2].data);
    else
        abort(); /* no other is used */
    return reply_number(1);
}

/* A request has reached the server. */
static void arrived(void *arg)
{
    struct rq *q = arg;
    struct world *w = q->world;
    struct redis_model *m = model(w);
    q->executed = true;
    m->now_ms = world_wall_ms(w);
    for (int i = 0; i < q->argc && i < 4; i++)
        mix(w, q->argv[i].len ? q->argv[i].data[q->argv[i].len - 1] + q->argv[i].len * 256 : 7);
    oracle_actor(w, q->redis ? q->redis->process : NULL,
                 q->script ? (struct slice){(const uint8_t *)q->script, strlen(q->script)} : q->argv[0]);
    if (q->script)
        q->reply = redis_model_script(m, q->script, q->keys, q->argc, q->argv);
    else if (is(q->argv[0], "CLIENT"))
        q->reply = client_command(q);
    else
        q->reply = redis_model_command(m, q->argc, q->argv);
    if (w->tracing)
        trace_line(w, "redis %s %.*s %.*s%s", q->redis ? q->redis->process->name : "ghost",
                   q->script ? (int)strlen(q->script) : (int)q->argv[0].len,
                   q->script ? q->script : (const char *)q->argv[0].data, (int)q->argv[q->script ? 0 : 1].len,
                   q->argc ? (const char *)q->argv[q->script ? 0 : 1].data : "",
                   q->reply->type == REDIS_REPLY_NIL ? " nil" : "");
    if (!q->script && is(q->argv[0], "BLMPOP") && q->reply->type == REDIS_REPLY_NIL) {
        char text[24];
        snprintf(text, sizeof text, "%.*s", (int)q->argv[1].len, (const char *)q->argv[1].data);
        reply_free(q->reply);
        q->reply = NULL;
        list_append(&server_of(w)->blocked, &q->waiting);
        event_plan(w, &q->timeout, w->now_us + (int64_t)(atof(text) * 1e6), NULL, block_over, q);
        return;
    }
    if (!q->script && is(q->argv[0], "PUBLISH"))
        spread(w, q->argv[2]);
    bool pushed = !q->script && is(q->argv[0], "RPUSH");
    send_answer(q);
    if (pushed)
        serve_blocked(w);
}

/* --- messages ---------------------------------------------------------------------------------------------------- */

static void message_free(struct message *m)
{
    event_cancel(m->redis->process->world, &m->event);
    list_remove(&m->link);
    free(m);
}

static void message_came(void *arg)
{
    struct message *m = arg;
    struct redis *redis = m->redis;
    list_remove(&m->link);
    redis->message(redis->message_arg, (struct slice){m->text, m->len});
    free(m);
}

static void send_message(struct redis *redis, struct slice text, int64_t late_us)
{
    struct world *w = redis->process->world;
    struct message *m = calloc(1, sizeof *m + text.len);
    if (!m)
        abort();
    m->redis = redis;
    m->len = text.len;
    memcpy(m->text, text.data, text.len);
    list_append(&redis->messages, &m->link);
    event_plan(w, &m->event, wire_arrival(w, &redis->back) + late_us, redis->process, message_came, m);
}

/* Hints may come late, twice or not at all. */
static void spread(struct world *w, struct slice text)
{
    const struct fault_plan *plan = fault_plan(w);
    list_for_each (l, tmp, &server_of(w)->connections) {
        struct redis *redis = container_of(l, struct redis, link);
        if (!redis->message || !redis->up || redis->broken || chance(w, plan->hint_lost))
            continue;
        send_message(redis, text, chance(w, plan->hint_odd) ? between(w, 0, 2 * S) : 0);
        if (chance(w, plan->hint_odd))
            send_message(redis, text, between(w, 0, 2 * S));
    }
}

/* --- the connection ---------------------------------------------------------------------------------------------- */

static void try_connect(void *arg);

static void fail_all(struct redis *redis)
{
    struct list now;
    list_init(&now);
    for (struct list *l; (l = list_pop(&redis->failed));)
        list_append(&now, l);
    for (struct list *l; (l = list_pop(&now));)
        end(container_of(l, struct rq, link), ERR_UNAVAILABLE);
}

static void soon(void *arg)
{
    fail_all(arg);
}

/* What has not been carried out may be so later. */
static void part_with(struct rq *q, int64_t late_us)
{
    struct world *w = q->world;
    bool blocked = !list_empty(&q->waiting);
    if (!blocked && (q->executed || !event_planned(&q->event)))
        return;
    struct rq *ghost = rq_new(q->redis, q->script, q->keys, q->argc, q->argv);
    ghost->redis = NULL;
    ghost->client = q->redis->client;
    ghost->client->ghosts++;
    list_append(&server_of(w)->ghosts, &ghost->link);
    if (blocked) {
        /* Redis gives what comes next to one that is not there. */
        list_append(&server_of(w)->blocked, &ghost->waiting);
        event_plan(w, &ghost->timeout, q->timeout.at_us, NULL, block_over, ghost);
        return;
    }
    event_plan(w, &ghost->event, q->event.at_us + late_us, NULL, arrived, ghost);
}

/* The client's end goes: of what it has sent the first so many still arrive. */
static void part_with_all(struct redis *redis)
{
    struct world *w = redis->process->world;
    const struct fault_plan *plan = fault_plan(w);
    struct client *c = redis->client;
    unsigned n = 0, most;
    if (!c)
        return;
    list_for_each (l, tmp, &redis->pending)
        n++;
    most = server_of(w)->up && chance(w, plan->ghosts) ? chance(w, 500) ? n : below(w, n + 1) : 0;
    int64_t late_us = chance(w, plan->ghosts_late) ? between(w, 0, GHOST_LATE_US) : 0;
    list_for_each (l, tmp, &redis->pending) {
        if (most-- == 0)
            break;
        part_with(container_of(l, struct rq, link), late_us);
    }
    redis->client = NULL;
    c->redis = NULL;
    client_leave(c);
}

static void lost(void *arg)
{
    struct redis *redis = arg;
    struct world *w = redis->process->world;
    bool was_up = redis->up;
    redis->up = false;
    redis->broken = false;
    event_cancel(w, &redis->lost);
    event_cancel(w, &redis->patience);
    while (!list_empty(&redis->messages))
        message_free(container_of(redis->messages.next, struct message, link));
    oracle_redis_cut(w);
    part_with_all(redis);
    list_for_each (l, tmp, &redis->pending) {
        struct rq *q = container_of(l, struct rq, link);
        event_cancel(w, &q->event);
        event_cancel(w, &q->timeout);
        list_remove(&q->waiting);
        list_remove(&q->link);
        list_append(&redis->failed, &q->link);
    }
    event_plan(w, &redis->connect, w->now_us + redis->backoff_us, redis->process, try_connect, redis);
    redis->backoff_us = redis->backoff_us * 2 < BACKOFF_MAX_US ? redis->backoff_us * 2 : BACKOFF_MAX_US;
    if (was_up && redis->change && !redis->dead)
        redis->change(redis->change_arg, false);
    fail_all(redis); /* behind that, as lib/store/redis.c does */
}

static void impatient(void *arg)
{
    struct redis *redis = arg;
    struct world *w = redis->process->world;
    if (list_empty(&redis->pending))
        return;
    if (w->now_us - redis->heard_us >= ANSWER_LIMIT_US)
        lost(redis);
    else
        event_plan(w, &redis->patience, redis->heard_us + ANSWER_LIMIT_US, redis->process, impatient, redis);
}

static void come_up(struct redis *redis)
{
    redis->up = true;
    redis->backoff_us = BACKOFF_MIN_US;
    if (redis->change)
        redis->change(redis->change_arg, true);
}

static void try_connect(void *arg)
{
    struct redis *redis = arg;
    struct world *w = redis->process->world;
    if (!server_of(w)->up || redis->there.stall_us > w->now_us) {
        redis->backoff_us = redis->backoff_us * 2 < BACKOFF_MAX_US ? redis->backoff_us * 2 : BACKOFF_MAX_US;
        event_plan(w, &redis->connect, w->now_us + redis->backoff_us, redis->process, try_connect, redis);
        return;
    }
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->id = ++server_of(w)->client_ids;
    c->redis = redis;
    list_append(&server_of(w)->clients, &c->link);
    redis->client = c;
    redis->connections++;
    redis->heard_us = w->now_us;
    redis->there = redis->back = (struct wire){0};
    if (redis->greet)
        redis->greet(redis->greet_arg);
    else
        come_up(redis);
}

void break_connection(struct redis *redis)
{
    struct world *w = redis->process->world;
    if (!redis->client || redis->broken)
        return;
    redis->broken = true;
    event_plan(w, &redis->lost, w->now_us + net_delay(w), redis->process, lost, redis);
}

/* --- lib/store/redis.h ------------------------------------------------------------------------------------------- */

struct redis *redis_new(struct ev_loop *loop, const char *url)
{
    struct redis *redis = calloc(1, sizeof *redis);
    struct world *w = sim_loop_process(loop)->world;
    (void)url;
    if (!redis)
        abort();
    redis->process = sim_loop_process(loop);
    redis->backoff_us = BACKOFF_MIN_US;
    list_init(&redis->pending);
    list_init(&redis->failed);
    list_init(&redis->messages);
    list_init(&redis->link);
    list_append(&server_of(w)->connections, &redis->link);
    event_plan(w, &redis->connect, w->now_us + net_delay(w), redis->process, try_connect, redis);
    return redis;
}

void redis_free(struct redis **out)
{
    struct redis *redis = *out;
    if (!redis)
        return;
    struct world *w = redis->process->world;
    *out = NULL;
    redis->dead = true;
    part_with_all(redis);
    for (struct list *l; (l = list_pop(&redis->pending)) || (l = list_pop(&redis->failed));)
        end(container_of(l, struct rq, link), ERR_CLOSED);
    while (!list_empty(&redis->messages))
        message_free(container_of(redis->messages.next, struct message, link));
    event_cancel(w, &redis->lost);
    event_cancel(w, &redis->connect);
    event_cancel(w, &redis->soon);
    event_cancel(w, &redis->patience);
    list_remove(&redis->link);
    free(redis);
}

bool redis_up(const struct redis *redis)
{
    return redis->up;
}

void redis_on_change(struct redis *redis, void (*fn)(void *arg, bool up), void *arg)
{
    redis->change = fn;
    redis->change_arg = arg;
}

void redis_on_connect(struct redis *redis, void (*fn)(void *arg), void *arg)
{
    redis->greet = fn;
    redis->greet_arg = arg;
}

void redis_greeted(struct redis *redis, bool good)
{
    if (!redis->client || redis->dead || redis->up)
        return;
    if (good)
        come_up(redis);
    else
        break_connection(redis);
}

uint64_t redis_connections(const struct redis *redis)
{
    return redis->connections;
}

int redis_database(const struct redis *redis)
{
    (void)redis;
    return 0;
}

static void send(struct redis *redis, struct rq *q, redis_done_fn *done, void *arg, bool greeting)
{
    struct world *w = redis->process->world;
    q->done = done;
    q->arg = arg;
    q->client = redis->client;
    if ((!redis->up && !(greeting && redis->client)) || redis->dead || redis->process->dying) {
        list_append(&redis->failed, &q->link);
        if (!redis->dead)
            event_plan(w, &redis->soon, w->now_us + 10, redis->process, soon, redis);
        return;
    }
    if (list_empty(&redis->pending)) {
        redis->heard_us = w->now_us;
        if (!event_planned(&redis->patience))
            event_plan(w, &redis->patience, w->now_us + ANSWER_LIMIT_US, redis->process, impatient, redis);
    }
    list_append(&redis->pending, &q->link);
    if (!redis->broken)
        event_plan(w, &q->event, wire_arrival(w, &redis->there), NULL, arrived, q);
}

void redis_command(struct redis *redis, int argc, const struct slice *argv, redis_done_fn *done, void *arg)
{
    send(redis, rq_new(redis, NULL, 0, argc, argv), done, arg, false);
}

void redis_receive(struct redis *redis)
{
    (void)redis; /* what comes has a turn of its own */
}

void redis_script(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                  redis_done_fn *done, void *arg)
{
    send(redis, rq_new(redis, script, keys, argc, argv), done, arg, false);
}

void redis_greeting(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                    redis_done_fn *done, void *arg)
{
    send(redis, rq_new(redis, script, keys, argc, argv), done, arg, true);
}

void redis_subscribe(struct redis *redis, const char *channel, void (*fn)(void *arg, struct slice message), void *arg)
{
    (void)channel;
    redis->message = fn;
    redis->message_arg = arg;
}
