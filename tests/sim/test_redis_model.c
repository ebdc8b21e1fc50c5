/* The model of Redis against a real one: random commands and scripts, answers and all keys compared after each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/store/block.h"
#include "lib/store/redis_internal.h"
#include "tests/sim/mutation.h"
#include "tests/sim/redis_model.h"
#include "tests/store/servers.h"

#define STEPS   15000
#define BATCHES 8
#define WORKERS 4
#define ARGS    16
#define TTL     "100000"

struct check {
    struct servers servers;
    redisContext *redis;
    struct redis_model *model;
    struct redis_scripts scripts;
    uint64_t random;
    bool wrong, noticed; /* wrong: the model is, and that is to be noticed */
    /* The step being made. */
    struct slice args[ARGS];
    int count, keys;
    struct buf bytes[ARGS];
};

static unsigned below(struct check *c, unsigned n)
{
    c->random = c->random * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((c->random >> 33) % n);
}

/* --- arguments --------------------------------------------------------------------------------------------------- */

static void put(struct check *c, const void *data, size_t len)
{
    struct buf *b = &c->bytes[c->count];
    buf_reset(b);
    buf_put(b, data, len);
    c->args[c->count++] = buf_slice(b);
}

static void putf(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void putf(struct check *c, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put(c, text, (size_t)n);
}

static void put_block_key(struct check *c, unsigned block, const char *suffix)
{
    putf(c, "{t1.b%u}:%s", block, suffix);
}

static void put_state_key(struct check *c, unsigned block, unsigned batch)
{
    putf(c, "{t1.b%u}:state:%u", block, batch);
}

static unsigned some_slot(struct check *c)
{
    return below(c, 3) ? below(c, 100) : below(c, BLOCK_SLOTS);
}

/* Different slots: few, some, or many, in order. */
static void put_slots(struct check *c)
{
    static const unsigned most[] = {3, 24, 300};
    struct bitmap m = {{0}};
    uint8_t packed[2 * BLOCK_SLOTS];
    size_t n = 0;
    for (unsigned i = 1 + below(c, most[below(c, 3)]); i > 0; i--)
        bitmap_set(&m, some_slot(c));
    for (unsigned slot = bitmap_next(&m, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&m, slot + 1))
        store_u16le(packed + 2 * n++, (uint16_t)slot);
    put(c, packed, 2 * n);
}

static void put_worker(struct check *c)
{
    putf(c, "%u", 1 + below(c, WORKERS));
}

/* --- one generator per file of schema/redis
 * ----------------------------------------------------------------------------- */

static void make_apply(struct check *c)
{
    put_state_key(c, below(c, 2), 1 + below(c, BATCHES));
    c->keys = 1;
    putf(c, "%u", below(c, EVENT_COUNT));
    if (below(c, 2))
        put_slots(c);
}

static void make_attach(struct check *c)
{
    static const unsigned most[] = {1, 2, 16, 256};
    unsigned block = below(c, 2);
    put_block_key(c, block, "presence");
    put_block_key(c, block, "open");
    c->keys = 2;
    put_worker(c);
    put_block_key(c, block, "state:");
    put_slots(c);
    putf(c, "%u", most[below(c, 4)]);
}

static void make_close(struct check *c)
{
    unsigned block = below(c, 2), batch = 1 + below(c, BATCHES);
    put_block_key(c, block, "open");
    put_state_key(c, block, batch);
    putf(c, "{t1.b%u}:values:%u", block, batch);
    c->keys = 3;
    for (uint64_t priority = 1; priority <= 3; priority++)
        putf(c, "%llu", (unsigned long long)((priority << 48) + batch));
}

static void make_detach(struct check *c)
{
    unsigned block = below(c, 2);
    put_block_key(c, block, "presence");
    put_block_key(c, block, "open");
    c->keys = 2;
    put_worker(c);
    put_block_key(c, block, "state:");
    put_slots(c);
}

static void make_filled(struct check *c)
{
    putf(c, "muster:generation");
    c->keys = 1;
    putf(c, "filling %u", below(c, 2));
    putf(c, "%s", below(c, 4) ? "life" : "");
}

static void make_hand_back(struct check *c)
{
    unsigned block = below(c, 2);
    put_block_key(c, block, "presence");
    put_state_key(c, block, 1 + below(c, BATCHES));
    c->keys = 2;
    put_worker(c);
    put_slots(c);
}

static void make_lead(struct check *c)
{
    putf(c, "muster:leader");
    c->keys = 1;
    putf(c, "%u", 1 + below(c, 1000));
}

static void make_limited(struct check *c)
{
    static const char *const kinds[] = {"cancel", "confirm", "broken"}, *const commands[] = {"SADD", "HSET", "HINCRBY"};
    unsigned kind = below(c, 3);
    putf(c, "%s:%u", kinds[kind], 1 + below(c, BATCHES));
    c->keys = 1;
    putf(c, "%u", 1000 + below(c, 1000));
    putf(c, "%s", commands[kind]);
    putf(c, "%u", 1 + below(c, 3));
    if (kind)
        putf(c, "%u", 1 + below(c, 3));
}

static void make_look(struct check *c)
{
    unsigned block = below(c, 2), batch = 1 + below(c, BATCHES);
    put_block_key(c, block, "presence");
    put_block_key(c, block, "open");
    put_state_key(c, block, batch);
    c->keys = 3;
    for (uint64_t priority = 1; priority <= 3; priority++)
        putf(c, "%llu", (unsigned long long)((priority << 48) + batch));
}

static void make_waiting(struct check *c)
{
    unsigned block = below(c, 2);
    put_block_key(c, block, "presence");
    put_block_key(c, block, "open");
    c->keys = 2;
    putf(c, "%u", some_slot(c));
    put_block_key(c, block, "state:");
    putf(c, "%u", 1 + below(c, 4));
}

static void make_reap(struct check *c)
{
    unsigned block = below(c, 2);
    put_block_key(c, block, "presence");
    put_block_key(c, block, "open");
    c->keys = 2;
    put_worker(c);
    put_block_key(c, block, "state:");
}

static int by_slot(const void *a, const void *b)
{
    return (int)load_u16le(a) - (int)load_u16le(b);
}

static void make_record(struct check *c)
{
    uint8_t events[4 * 1024] = {0};
    size_t n = below(c, 2) ? 1 : below(c, 2) ? 2 + below(c, 23) : 25 + below(c, 400);
    put_state_key(c, below(c, 2), 1 + below(c, BATCHES));
    c->keys = 1;
    for (size_t i = 0; i < n; i++) {
        /* As live.c sends few: sorted, several of one slot in their order, which here is any. */
        store_u16le(events + 4 * i, (uint16_t)some_slot(c));
        events[4 * i + 2] = (uint8_t)below(c, EVENT_COUNT);
        events[4 * i + 3] = (uint8_t)below(c, 16);
    }
    if (n <= 24)
        qsort(events, n, 4, by_slot);
    put(c, events, 4 * n);
}

/* A whole state string: any span, any share of its slots addressed, mostly QUEUED. */
static void some_states(struct check *c, struct buf *out, struct state_string *s)
{
    struct bitmap targets = {{0}};
    unsigned length = below(c, 2) ? 1 + below(c, 5) : 1 + below(c, 300), one_in = 1 + below(c, 3);
    unsigned from = below(c, 3) ? below(c, 60) : below(c, BLOCK_SLOTS - length + 1);
    if (from + length > BLOCK_SLOTS)
        length = BLOCK_SLOTS - from;
    bitmap_set(&targets, from);
    for (unsigned slot = from; slot < from + length; slot++)
        if (below(c, one_in) == 0)
            bitmap_set(&targets, slot);
    state_string_put(out, &targets, state_byte(STATE_QUEUED, 0));
    uint8_t *states = buf_head(out) + STATE_STRING_HEADER;
    for (size_t i = 0; i < buf_len(out) - STATE_STRING_HEADER; i++)
        if (states[i] && below(c, 5) == 0)
            states[i] = state_byte((enum command_state)(1 + below(c, STATE_COUNT - 1)), below(c, 4));
    assert_true(state_string_parse(s, buf_slice(out)));
}

/* The caller's belief: what is there, something else, or nothing. */
static void put_belief(struct check *c, unsigned block, const struct state_string *s, struct slice fresh)
{
    char key[64];
    uint8_t there[2 * BLOCK_SLOTS] = {0}, believed[STATE_STRING_HEADER + BLOCK_SLOTS];
    int len = snprintf(key, sizeof key, "{t1.b%u}:presence", block);
    struct slice now = model_text(model_find(c->model, (struct slice){(const uint8_t *)key, (size_t)len}));
    if (below(c, 4) == 0) {
        put(c, "", 0);
        put(c, "", 0);
        return;
    }
    if (now.len)
        memcpy(there, now.data, now.len);
    if (below(c, 3) == 0)
        store_u16le(there + 2 * (s->first + below(c, s->count)), (uint16_t)below(c, WORKERS));
    memcpy(believed, fresh.data, fresh.len);
    for (unsigned i = 0; i < s->count; i++)
        if (state_of(s->states[i]) == STATE_QUEUED && load_u16le(there + 2 * (s->first + i)))
            believed[STATE_STRING_HEADER + i] = state_byte(STATE_ROUTED, state_attempts(s->states[i]));
    put(c, there + 2 * s->first, 2 * (size_t)s->count);
    put(c, believed, fresh.len);
}

static void make_route(struct check *c)
{
    unsigned block = below(c, 2), batch = 1 + below(c, BATCHES);
    struct buf states = {0};
    struct state_string s;
    uint8_t member[32];
    some_states(c, &states, &s);
    put_block_key(c, block, "presence");
    put_block_key(c, block, "open");
    put_state_key(c, block, batch);
    c->keys = 3;
    store_u16le(member, s.first);
    store_u16le(member + 2, s.count);
    put(c, member, 4 + (size_t)snprintf((char *)member + 4, sizeof member - 4, "%u", batch));
    putf(c, "%llu", (unsigned long long)((1ull + batch % 3) << 48) + batch);
    putf(c, "%u", s.first);
    if (below(c, 4))
        put_belief(c, block, &s, buf_slice(&states));
    else
        putf(c, "%s", ""), putf(c, "-"); /* only what stands there */
    put(c, buf_slice(&states).data, buf_len(&states));
    buf_free(&states);
}

static void put_lease(struct check *c)
{
    putf(c, "worker:%u", 1 + below(c, WORKERS));
    c->keys = 1;
}

static void make_worker_dead(struct check *c)
{
    put_lease(c);
    put(c, "", 0);
}

static void make_worker_lease(struct check *c)
{
    put_lease(c);
    putf(c, "%s", below(c, 5) ? below(c, 2) ? "one" : "two" : "");
    putf(c, TTL);
}

static const struct generator {
    const char *name;
    void (*make)(struct check *c);
    unsigned weight;
} scripts[] = {{"apply", make_apply, 3},
               {"attach", make_attach, 8},
               {"close", make_close, 1},
               {"detach", make_detach, 3},
               {"filled", make_filled, 1},
               {"hand_back", make_hand_back, 4},
               {"lead", make_lead, 1},
               {"limited", make_limited, 2},
               {"look", make_look, 1},
               {"reap", make_reap, 2},
               {"record", make_record, 8},
               {"route", make_route, 8},
               {"waiting", make_waiting, 2},
               {"worker_dead", make_worker_dead, 1},
               {"worker_reclaim", make_worker_lease, 1},
               {"worker_release", make_worker_lease, 1},
               {"worker_renew", make_worker_lease, 1}};
#define SCRIPTS (sizeof scripts / sizeof *scripts)

/* --- plain commands
 * ---------------------------------------------------------------------------------------------------- */

static void put_inbox(struct check *c)
{
    static const char *const classes[] = {"urgent", "normal", "bulk"};
    putf(c, "{w%u}:inbox:%s", 1 + below(c, 2), classes[below(c, 3)]);
}

static void make_command(struct check *c)
{
    unsigned worker = 1 + below(c, WORKERS);
    c->keys = 0;
    switch (below(c, 13)) {
    case 0:
        putf(c, "SET"), putf(c, "worker:%u", worker), putf(c, "one"), putf(c, "NX"), putf(c, "PX"), putf(c, TTL);
        break;
    case 1:
        putf(c, "SET"), putf(c, "muster:generation"), putf(c, "filling %u", below(c, 2));
        break;
    case 2:
        putf(c, "DEL"), putf(c, "worker:%u", worker), putf(c, "cancel:%u", worker);
        break;
    case 3:
        putf(c, "SADD"), putf(c, "workers"), put_worker(c);
        break;
    case 4:
        putf(c, "SREM"), putf(c, "workers"), put_worker(c);
        break;
    case 5:
        putf(c, "SISMEMBER"), putf(c, "workers"), put_worker(c);
        break;
    case 6:
        putf(c, "SMEMBERS"), putf(c, below(c, 2) ? "workers" : "cancel:1");
        break;
    case 7:
        putf(c, "RPUSH"), put_inbox(c), putf(c, "%u", below(c, 1000));
        break;
    case 8:
        putf(c, "BLMPOP"), putf(c, "0.001"), putf(c, "3"), put_inbox(c), put_inbox(c), put_inbox(c), putf(c, "LEFT"),
            putf(c, "COUNT"), putf(c, "%u", 1 + below(c, 3));
        break;
    case 9:
        putf(c, "SADD"), putf(c, "cancel:1"), put_worker(c);
        break;
    case 10:
        putf(c, "EXPIRE"), putf(c, "cancel:1"), putf(c, "100");
        break;
    case 11:
        putf(c, "HSET"), putf(c, "confirm:0"), put_worker(c), putf(c, "%u", below(c, 9));
        break;
    case 13:
        putf(c, "LLEN"), put_inbox(c);
        break;
    default:
        putf(c, "HGETALL"), putf(c, "confirm:0");
        break;
    }
}

/* --- both sides
 * --------------------------------------------------------------------------------------------------------- */

static redisReply *ask(struct check *c, const struct redis_script *script)
{
    const char *argv[ARGS + 3];
    size_t lens[ARGS + 3];
    char keys[8];
    int n = 0;
    if (script) {
        argv[n] = "EVALSHA", lens[n++] = 7;
        argv[n] = script->hash, lens[n++] = strlen(script->hash);
        lens[n] = (size_t)snprintf(keys, sizeof keys, "%d", c->keys);
        argv[n++] = keys;
    }
    for (int i = 0; i < c->count; i++) {
        argv[n] = (const char *)c->args[i].data;
        lens[n++] = c->args[i].len;
    }
    redisReply *r = redisCommandArgv(c->redis, n, argv, lens);
    assert_non_null(r);
    return r;
}

static bool same(const redisReply *a, const redisReply *b)
{
    if (a->type != b->type || a->integer != b->integer || a->len != b->len || a->elements != b->elements)
        return false;
    if (a->len && memcmp(a->str, b->str, a->len) != 0)
        return false;
    for (size_t i = 0; i < a->elements; i++)
        if (!same(a->element[i], b->element[i]))
            return false;
    return true;
}

/* All keys with type, whether they end by themselves, and content. */
static const char dump_script[] = "local keys, out = redis.call('KEYS', '*'), {}\n"
                                  "table.sort(keys)\n"
                                  "for _, k in ipairs(keys) do\n"
                                  "    local t, v = redis.call('TYPE', k).ok, nil\n"
                                  "    if t == 'string' then v = {redis.call('GET', k)}\n"
                                  "    elseif t == 'list' then v = redis.call('LRANGE', k, 0, -1)\n"
                                  "    elseif t == 'hash' then v = redis.call('HGETALL', k)\n"
                                  "    elseif t == 'set' then v = redis.call('SMEMBERS', k)\n"
                                  "    else v = redis.call('ZRANGE', k, 0, -1, 'WITHSCORES') end\n"
                                  "    out[#out + 1] = k .. '=' .. t .. (redis.call('PTTL', k) > 0 and '!' or '')\n"
                                  "    for _, x in ipairs(v) do out[#out + 1] = #x .. ':' .. x end\n"
                                  "end\n"
                                  "return table.concat(out, '\\n')";

static int by_key(const void *a, const void *b)
{
    return strcmp((*(struct value *const *)a)->key, (*(struct value *const *)b)->key);
}

static void dump_value(const struct value *v, struct buf *out)
{
    static const char *const types[] = {"string", "list", "set", "zset", "hash"};
    buf_printf(out, "%s%s=%s%s", buf_len(out) ? "\n" : "", v->key, types[v->type], v->expires_ms ? "!" : "");
    if (v->type == VALUE_STRING) {
        buf_printf(out, "\n%zu:", v->len);
        buf_put(out, v->text, v->len);
    }
    for (size_t i = 0; i < v->count; i++) {
        buf_printf(out, "\n%zu:", v->members[i].len);
        buf_put(out, v->members[i].data, v->members[i].len);
        if (v->type == VALUE_SORTED || v->type == VALUE_HASH) {
            char score[24];
            int n = snprintf(score, sizeof score, "%llu", (unsigned long long)v->members[i].score);
            buf_printf(out, "\n%d:%s", n, score);
        }
    }
}

static void dump_model(struct check *c, struct buf *out)
{
    struct value *all[256] = {0};
    size_t n = 0;
    for (size_t i = 0; i < 256; i++)
        for (struct value *v = c->model->buckets[i]; v && n < 256; v = v->next)
            all[n++] = v;
    qsort(all, n, sizeof *all, by_key);
    for (size_t i = 0; i < n; i++)
        dump_value(all[i], out);
}

static void check_keys(struct check *c, const char *after, int step)
{
    struct buf mine = {0};
    redisReply *r = redisCommand(c->redis, "EVAL %s 0", dump_script);
    dump_model(c, &mine);
    if (r->type != REDIS_REPLY_STRING || r->len != buf_len(&mine) ||
        memcmp(r->str, buf_slice(&mine).data, r->len) != 0) {
        c->noticed = true;
        if (!c->wrong)
            print_error("step %d: after %s the keys differ\n", step, after);
        assert_true(c->wrong);
    }
    buf_free(&mine);
    freeReplyObject(r);
}

static const struct generator *some_script(struct check *c)
{
    unsigned total = 0, draw;
    for (size_t i = 0; i < SCRIPTS; i++)
        total += scripts[i].weight;
    draw = below(c, total);
    for (size_t i = 0;; i++) {
        if (draw < scripts[i].weight)
            return &scripts[i];
        draw -= scripts[i].weight;
    }
}

static void one_step(struct check *c, int step)
{
    const struct generator *g = below(c, 5) ? some_script(c) : NULL;
    const struct redis_script *script = g ? redis_scripts_find(&c->scripts, g->name) : NULL;
    redisReply *theirs, *ours;
    c->count = c->keys = 0;
    if (g)
        g->make(c);
    else
        make_command(c);
    theirs = ask(c, script);
    ours = g ? redis_model_script(c->model, g->name, c->keys, c->count, c->args)
             : redis_model_command(c->model, c->count, c->args);
    if (!same(theirs, ours) && c->wrong)
        c->noticed = true;
    else if (!same(theirs, ours)) {
        print_error("step %d: %s is answered with another (%d, %s)\n", step,
                    g ? g->name : (const char *)c->args[0].data, theirs->type, theirs->str ? theirs->str : "");
        fail();
    }
    freeReplyObject(theirs);
    reply_free(ours);
    check_keys(c, g ? g->name : (const char *)c->args[0].data, step);
}

/* --- tests
 * ---------------------------------------------------------------------------------------------------------------- */

static void every_script_is_checked(void **state)
{
    (void)state;
    for (const struct model_script *s = model_scripts; s->name; s++) {
        bool found = false;
        for (size_t i = 0; i < SCRIPTS; i++)
            found = found || strcmp(scripts[i].name, s->name) == 0;
        if (!found)
            print_error("%s.lua has no generator here\n", s->name);
        assert_true(found);
    }
}

static void the_model_does_what_redis_does(void **state)
{
    struct check *c = *state;
    c->random = 20261125;
    for (int step = 0; step < STEPS; step++)
        one_step(c, step);
}

static void every_mistake_is_noticed(void **state)
{
    static const unsigned mistakes[] = {MUTATION_RECORD_OVERWRITES, MUTATION_REAP_KEEPS,      MUTATION_DETACH_ANYBODY,
                                        MUTATION_ATTACH_FORGETS,    MUTATION_ROUTE_FORGETS,   MUTATION_APPLY_SKIPS,
                                        MUTATION_CLOSE_KEEPS,       MUTATION_ATTACH_BACKWARDS};
    struct check *c = *state;
    c->wrong = true;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        freeReplyObject(redisCommand(c->redis, "FLUSHALL"));
        redis_model_flush(c->model);
        c->model->mutation = mistakes[i];
        c->noticed = false;
        for (int step = 0; step < STEPS && !c->noticed; step++)
            one_step(c, step);
        assert_true(c->noticed);
    }
}

static int set_up(void **state)
{
    static struct check check;
    struct check *c = &check;
    servers_init(&c->servers);
    servers_start_redis(&c->servers);
    c->redis = redisConnectUnix(strchr(c->servers.redis_url, '/') + 2);
    c->model = redis_model_new("life");
    if (!c->redis || c->redis->err || !redis_scripts_make(&c->scripts))
        return -1;
    for (int i = 0; i < c->scripts.count; i++) {
        struct slice text = buf_slice(&c->scripts.v[i].text);
        redisReply *r = redisCommand(c->redis, "SCRIPT LOAD %b", text.data, text.len);
        if (!r || r->type == REDIS_REPLY_ERROR)
            return -1;
        freeReplyObject(r);
    }
    *state = c;
    return 0;
}

static int tear_down(void **state)
{
    struct check *c = *state;
    redisFree(c->redis);
    redis_model_free(&c->model);
    redis_scripts_free(&c->scripts);
    for (int i = 0; i < ARGS; i++)
        buf_free(&c->bytes[i]);
    servers_free(&c->servers);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_script_is_checked),
                                       cmocka_unit_test(the_model_does_what_redis_does),
                                       cmocka_unit_test(every_mistake_is_noticed)};
    return cmocka_run_group_tests_name("redis_model", tests, set_up, tear_down);
}
