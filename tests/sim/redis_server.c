#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/oracle.h"
#include "tests/sim/redis.h"
#include "tests/sim/redis_parts.h"

static void on_state(void *arg, struct slice key, struct slice before, struct slice after)
{
    oracle_state(arg, key, before, after);
}

static void watch(struct world *w)
{
    w->redis_model->on_state = on_state;
    w->redis_model->arg = w;
    w->redis_model->mutation = w->mutation;
}

void sim_redis_init(struct world *w)
{
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->world = w;
    s->up = true;
    list_init(&s->connections);
    list_init(&s->ghosts);
    list_init(&s->blocked);
    list_init(&s->clients);
    w->redis = (struct redis_server *)(void *)s;
    w->redis_model = redis_model_new("life-1");
    watch(w);
}

static void drop_ghosts(struct server *s)
{
    while (!list_empty(&s->ghosts))
        rq_free(container_of(s->ghosts.next, struct rq, link));
}

void sim_redis_free(struct world *w)
{
    struct server *s = server_of(w);
    if (!s)
        return;
    drop_ghosts(s);
    event_cancel(w, &s->start);
    redis_model_free(&s->remembered);
    w->redis_model->on_state = NULL;
    redis_model_free(&w->redis_model);
    free(s);
    w->redis = NULL;
}

void sim_redis_cut(struct world *w, const struct process *p)
{
    list_for_each (l, tmp, &server_of(w)->connections) {
        struct redis *redis = container_of(l, struct redis, link);
        if (!p || redis->process == p)
            break_connection(redis);
    }
}

/* What is on its way is put off too, in its order. */
static void put_off(struct redis *redis)
{
    struct world *w = redis->process->world;
    list_for_each (l, tmp, &redis->pending) {
        struct rq *q = container_of(l, struct rq, link);
        if (!q->event.place)
            continue;
        struct wire *wire = q->executed ? &redis->back : &redis->there;
        event_plan(w, &q->event, wire_arrival(w, wire), q->event.process, q->event.fn, q);
    }
}

void sim_redis_stall(struct world *w, const struct process *p, int64_t until_us)
{
    oracle_redis_cut(w);
    list_for_each (l, tmp, &server_of(w)->connections) {
        struct redis *redis = container_of(l, struct redis, link);
        if (p && redis->process != p)
            continue;
        wire_stall(&redis->there, until_us);
        wire_stall(&redis->back, until_us);
        put_off(redis);
    }
}

void sim_redis_flush(struct world *w)
{
    w->redis_model->on_state = NULL;
    redis_model_flush(w->redis_model);
    watch(w);
    oracle_redis_lost(w);
}

void sim_redis_remember(struct world *w)
{
    struct server *s = server_of(w);
    redis_model_free(&s->remembered);
    s->remembered = redis_model_copy(w->redis_model);
    s->remembered->on_state = NULL;
}

static void start(void *arg)
{
    struct server *s = arg;
    s->up = true;
    trace(s->world, "redis is back as %s", s->world->redis_model->run_id);
}

void sim_redis_restart(struct world *w, int64_t away_us, int64_t lost_us)
{
    struct server *s = server_of(w);
    if (!s->up)
        return;
    s->up = false;
    sim_redis_cut(w, NULL);
    drop_ghosts(s);
    list_for_each (l, tmp, &s->connections) {
        struct redis *redis = container_of(l, struct redis, link);
        list_for_each (k, tmp2, &redis->pending) {
            struct rq *q = container_of(k, struct rq, link);
            event_cancel(w, &q->event);
            event_cancel(w, &q->timeout);
            list_remove(&q->waiting);
            q->executed = true; /* or never */
        }
    }
    w->redis_model->on_state = NULL;
    if (lost_us == INT64_MAX)
        redis_model_flush(w->redis_model);
    else if (s->remembered) {
        redis_model_free(&w->redis_model);
        w->redis_model = s->remembered;
        s->remembered = NULL;
    }
    snprintf(w->redis_model->run_id, sizeof w->redis_model->run_id, "life-%u", ++s->lives + 1);
    watch(w);
    oracle_redis_lost(w);
    event_plan(w, &s->start, w->now_us + away_us, NULL, start, s);
}
