#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chaos/chaos.h"

/* A batch's keys go a moment after it is closed. */
#define EMPTY_S 20
#define LOOK_S  0.2

/* A walk over all keys. */
struct scan {
    struct chaos *chaos;
    char cursor[24];
    size_t found;
    char example[96];
    bool over;
    enum err err;
};

static void call(struct scan *s, int argc, const char *const *words, redis_done_fn *done)
{
    struct slice argv[4];

    for (int i = 0; i < argc; i++)
        argv[i] = (struct slice){(const uint8_t *)words[i], strlen(words[i])};
    redis_command(s->chaos->redis, argc, argv, done, s);
}

/* The keys of schema/KEYS.md that live until a batch is closed. */
static bool is_of_a_batch(const char *key)
{
    return strncmp(key, "batch:", 6) == 0 || strncmp(key, "cancel:", 7) == 0 || strstr(key, "}:state:") ||
           strstr(key, "}:open");
}

static void scanned(void *arg, enum err err, const redisReply *reply);

static void next(struct scan *s)
{
    const char *const words[] = {"SCAN", s->cursor, "COUNT", "1000"};

    call(s, 4, words, scanned);
}

static void scanned(void *arg, enum err err, const redisReply *reply)
{
    struct scan *s = arg;

    s->err = err;
    if (err != ERR_OK || reply->elements != 2) {
        s->over = true;
        ev_break(s->chaos->dev.group.loop, EVBREAK_ALL);
        return;
    }
    const redisReply *keys = reply->element[1];
    for (size_t i = 0; i < keys->elements; i++)
        if (is_of_a_batch(keys->element[i]->str)) {
            s->found++;
            snprintf(s->example, sizeof s->example, "%s", keys->element[i]->str);
        }
    snprintf(s->cursor, sizeof s->cursor, "%s", reply->element[0]->str);
    if (strcmp(s->cursor, "0") != 0) {
        next(s);
        return;
    }
    s->over = true;
    ev_break(s->chaos->dev.group.loop, EVBREAK_ALL);
}

bool chaos_look_at_redis(struct chaos *c)
{
    double until = ev_time() + EMPTY_S;
    struct scan s;

    do {
        s = (struct scan){.chaos = c, .cursor = "0"};
        next(&s);
        while (!s.over)
            ev_run(c->dev.group.loop, 0);
        if (s.err == ERR_OK && s.found == 0)
            return true;
    } while (ev_time() < until && chaos_pause(c, LOOK_S));
    if (c->dev.group.broken)
        return false;
    if (s.err == ERR_OK)
        verdict_complain(&c->verdict, BREACH_REDIS_NOT_EMPTY, "%zu keys of closed batches, such as %s", s.found,
                         s.example);
    else
        verdict_complain(&c->verdict, BREACH_HANG, "Redis does not answer: %s", err_name(s.err));
    return true;
}
