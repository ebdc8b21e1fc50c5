#include "tests/sim/redis_model.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/fnv.h"
#include "tests/sim/mutation.h"

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

/* --- replies ----------------------------------------------------------------------------------------------------- */

static redisReply *reply_new(int type)
{
    redisReply *r = must(calloc(1, sizeof *r));
    r->type = type;
    return r;
}

redisReply *reply_number(int64_t v)
{
    redisReply *r = reply_new(REDIS_REPLY_INTEGER);
    r->integer = v;
    return r;
}

redisReply *reply_text(struct slice text)
{
    redisReply *r = reply_new(REDIS_REPLY_STRING);
    r->str = must(malloc(text.len + 1));
    if (text.len)
        memcpy(r->str, text.data, text.len);
    r->str[text.len] = '\0';
    r->len = text.len;
    return r;
}

redisReply *reply_nil(void)
{
    return reply_new(REDIS_REPLY_NIL);
}

redisReply *reply_array(size_t n)
{
    redisReply *r = reply_new(REDIS_REPLY_ARRAY);
    r->elements = n;
    r->element = must(calloc(n ? n : 1, sizeof *r->element));
    return r;
}

void reply_free(redisReply *reply)
{
    if (!reply)
        return;
    for (size_t i = 0; i < reply->elements; i++)
        reply_free(reply->element[i]);
    free(reply->element);
    free(reply->str);
    free(reply);
}

uint64_t slice_number(struct slice s)
{
    char text[24];
    snprintf(text, sizeof text, "%.*s", (int)s.len, (const char *)s.data);
    return strtoull(text, NULL, 10);
}

/* --- keys -------------------------------------------------------------------------------------------------------- */

static struct value **bucket_of(struct redis_model *m, struct slice key)
{
    uint32_t h = fnv_add(FNV_BEGIN, key.data, key.len);
    return &m->buckets[(h ^ h >> 13) % 256];
}

static struct value **place_of(struct redis_model *m, struct slice key)
{
    struct value **at = bucket_of(m, key);
    while (*at && ((*at)->key_len != key.len || memcmp((*at)->key, key.data, key.len) != 0))
        at = &(*at)->next;
    return at;
}

static void value_free(struct value *v)
{
    for (size_t i = 0; i < v->count; i++)
        free(v->members[i].data);
    free(v->members);
    free(v->text);
    free(v);
}

static bool is_state(struct slice key)
{
    return memmem(key.data, key.len, "}:state:", 8) != NULL;
}

static void tell(struct redis_model *m, struct slice key, struct slice before, struct slice after)
{
    if (m->on_state && is_state(key))
        m->on_state(m->arg, key, before, after);
}

static void remove_at(struct redis_model *m, struct value **at)
{
    struct value *v = *at;
    assert(v);
    *at = v->next;
    tell(m, (struct slice){(const uint8_t *)v->key, v->key_len}, model_text(v), (struct slice){0});
    value_free(v);
}

struct value *model_find(struct redis_model *m, struct slice key)
{
    struct value **at = place_of(m, key);
    if (!*at || !(*at)->expires_ms || (*at)->expires_ms > m->now_ms)
        return *at;
    remove_at(m, at);
    return NULL;
}

struct value *model_make(struct redis_model *m, struct slice key, enum value_type type)
{
    struct value *v = model_find(m, key);
    if (v) {
        if (v->type != type)
            abort(); /* WRONGTYPE: nothing of ours does that */
        return v;
    }
    v = must(calloc(1, sizeof *v + key.len + 1));
    v->type = type;
    v->key_len = key.len;
    memcpy(v->key, key.data, key.len);
    struct value **at = bucket_of(m, key);
    v->next = *at;
    *at = v;
    return v;
}

void model_delete(struct redis_model *m, struct slice key)
{
    if (model_find(m, key))
        remove_at(m, place_of(m, key));
}

void model_drop_empty(struct redis_model *m, struct slice key)
{
    struct value *v = model_find(m, key);
    if (v && v->type != VALUE_STRING && v->count == 0)
        model_delete(m, key);
}

void model_set(struct redis_model *m, struct slice key, struct slice text)
{
    struct value *v = model_make(m, key, VALUE_STRING);
    uint8_t *copy = must(malloc(text.len + 1));
    if (text.len)
        memcpy(copy, text.data, text.len);
    tell(m, key, model_text(v), (struct slice){copy, text.len});
    free(v->text);
    v->text = copy;
    v->len = text.len;
    v->expires_ms = 0;
}

/* --- members ----------------------------------------------------------------------------------------------------- */

static void member_insert(struct value *v, size_t at, uint64_t score, struct slice data)
{
    if (v->count == v->room) {
        v->room = v->room ? v->room * 2 : 4;
        v->members = must(realloc(v->members, v->room * sizeof *v->members));
    }
    memmove(&v->members[at + 1], &v->members[at], (v->count - at) * sizeof *v->members);
    v->members[at] = (struct member){score, must(malloc(data.len + 1)), data.len};
    memcpy(v->members[at].data, data.data, data.len);
    v->count++;
}

void member_remove(struct value *v, size_t at)
{
    free(v->members[at].data);
    v->count--;
    memmove(&v->members[at], &v->members[at + 1], (v->count - at) * sizeof *v->members);
}

static int compare(const struct member *m, uint64_t score, struct slice data)
{
    if (m->score != score)
        return m->score < score ? -1 : 1;
    size_t n = m->len < data.len ? m->len : data.len;
    int c = memcmp(m->data, data.data, n);
    return c ? c : m->len < data.len ? -1 : m->len > data.len;
}

void sorted_add(struct value *v, uint64_t score, struct slice data)
{
    for (size_t i = 0; i < v->count; i++)
        if (v->members[i].len == data.len && memcmp(v->members[i].data, data.data, data.len) == 0) {
            member_remove(v, i);
            break;
        }
    size_t at = 0;
    while (at < v->count && compare(&v->members[at], score, data) < 0)
        at++;
    member_insert(v, at, score, data);
}

/* Sets hold numbers: Redis keeps and gives them in order. */
static bool set_add(struct value *v, struct slice data)
{
    uint64_t number = slice_number(data);
    size_t at = 0;
    while (at < v->count && v->members[at].score < number)
        at++;
    if (at < v->count && v->members[at].score == number)
        return false;
    member_insert(v, at, number, data);
    return true;
}

static size_t set_find(const struct value *v, struct slice data)
{
    uint64_t number = slice_number(data);
    for (size_t i = 0; v && i < v->count; i++)
        if (v->members[i].score == number)
            return i;
    return SIZE_MAX;
}

/* --- life -------------------------------------------------------------------------------------------------------- */

struct redis_model *redis_model_new(const char *run_id)
{
    struct redis_model *m = must(calloc(1, sizeof *m));
    snprintf(m->run_id, sizeof m->run_id, "%s", run_id);
    return m;
}

void redis_model_flush(struct redis_model *m)
{
    for (size_t i = 0; i < 256; i++)
        for (struct value *v; (v = m->buckets[i]);) {
            m->buckets[i] = v->next;
            value_free(v);
        }
}

void redis_model_free(struct redis_model **m)
{
    if (!*m)
        return;
    redis_model_flush(*m);
    free(*m);
    *m = NULL;
}

struct redis_model *redis_model_copy(const struct redis_model *from)
{
    struct redis_model *m = must(malloc(sizeof *m));
    *m = *from;
    memset(m->buckets, 0, sizeof m->buckets);
    m->on_state = NULL;
    for (size_t i = 0; i < 256; i++)
        for (const struct value *v = from->buckets[i]; v; v = v->next) {
            struct slice key = {(const uint8_t *)v->key, v->key_len};
            struct value *copy = model_make(m, key, v->type);
            if (v->type == VALUE_STRING)
                model_set(m, key, model_text(v));
            copy->expires_ms = v->expires_ms;
            for (size_t k = 0; k < v->count; k++)
                member_insert(copy, k, v->members[k].score, (struct slice){v->members[k].data, v->members[k].len});
        }
    m->on_state = from->on_state;
    return m;
}

/* --- commands ---------------------------------------------------------------------------------------------------- */

static bool is(struct slice s, const char *word)
{
    return s.len == strlen(word) && memcmp(s.data, word, s.len) == 0;
}

static redisReply *command_get(struct redis_model *m, int argc, const struct slice *argv)
{
    struct value *v = model_find(m, argv[1]);
    (void)argc;
    return v ? reply_text(model_text(v)) : reply_nil();
}

static redisReply *status(const char *text)
{
    redisReply *r = reply_text((struct slice){(const uint8_t *)text, strlen(text)});
    r->type = REDIS_REPLY_STATUS;
    return r;
}

static redisReply *command_set(struct redis_model *m, int argc, const struct slice *argv)
{
    int64_t ttl_ms = 0;
    bool absent = false;
    for (int i = 3; i < argc; i++) {
        if (is(argv[i], "NX"))
            absent = true;
        else if (is(argv[i], "PX"))
            ttl_ms = (int64_t)slice_number(argv[++i]);
        else
            abort();
    }
    if (absent && model_find(m, argv[1]))
        return reply_nil();
    model_set(m, argv[1], argv[2]);
    if (ttl_ms)
        model_find(m, argv[1])->expires_ms = m->now_ms + ttl_ms;
    return status("OK");
}

static redisReply *command_del(struct redis_model *m, int argc, const struct slice *argv)
{
    int64_t n = 0;
    for (int i = 1; i < argc; i++) {
        n += model_find(m, argv[i]) != NULL;
        model_delete(m, argv[i]);
    }
    return reply_number(n);
}

static redisReply *command_sadd(struct redis_model *m, int argc, const struct slice *argv)
{
    int64_t n = 0;
    for (int i = 2; i < argc; i++)
        n += set_add(model_make(m, argv[1], VALUE_SET), argv[i]);
    return reply_number(n);
}

static redisReply *command_srem(struct redis_model *m, int argc, const struct slice *argv)
{
    int64_t n = 0;
    for (int i = 2; i < argc; i++) {
        struct value *v = model_find(m, argv[1]);
        size_t at = set_find(v, argv[i]);
        if (at == SIZE_MAX)
            continue;
        member_remove(v, at);
        n++;
    }
    model_drop_empty(m, argv[1]);
    return reply_number(n);
}

static redisReply *command_sismember(struct redis_model *m, int argc, const struct slice *argv)
{
    (void)argc;
    return reply_number(set_find(model_find(m, argv[1]), argv[2]) != SIZE_MAX);
}

static redisReply *command_smembers(struct redis_model *m, int argc, const struct slice *argv)
{
    const struct value *v = model_find(m, argv[1]);
    redisReply *r = reply_array(v ? v->count : 0);
    (void)argc;
    for (size_t i = 0; i < r->elements; i++)
        r->element[i] = reply_text((struct slice){v->members[i].data, v->members[i].len});
    return r;
}

static redisReply *command_rpush(struct redis_model *m, int argc, const struct slice *argv)
{
    struct value *v = model_make(m, argv[1], VALUE_LIST);
    for (int i = 2; i < argc; i++)
        member_insert(v, v->count, 0, argv[i]);
    return reply_number((int64_t)v->count);
}

static redisReply *command_llen(struct redis_model *m, int argc, const struct slice *argv)
{
    const struct value *v = model_find(m, argv[1]);
    (void)argc;
    return reply_number(v ? (int64_t)v->count : 0);
}

/* BLMPOP timeout numkeys key … LEFT COUNT n, without the waiting. */
static redisReply *command_blmpop(struct redis_model *m, int argc, const struct slice *argv)
{
    int keys = (int)slice_number(argv[2]);
    size_t most = slice_number(argv[argc - 1]);
    for (int i = 0; i < keys; i++) {
        struct value *v = model_find(m, argv[3 + i]);
        if (!v)
            continue;
        redisReply *r = reply_array(2);
        r->element[0] = reply_text(argv[3 + i]);
        r->element[1] = reply_array(v->count < most ? v->count : most);
        for (size_t k = 0; k < r->element[1]->elements; k++) {
            r->element[1]->element[k] = reply_text((struct slice){v->members[0].data, v->members[0].len});
            member_remove(v, 0);
        }
        model_drop_empty(m, argv[3 + i]);
        return r;
    }
    return reply_nil();
}

static redisReply *command_info(struct redis_model *m, int argc, const struct slice *argv)
{
    char text[64];
    (void)argc, (void)argv;
    int n = snprintf(text, sizeof text, "run_id:%s\r\n", m->run_id);
    return reply_text((struct slice){(const uint8_t *)text, (size_t)n});
}

static redisReply *command_hset(struct redis_model *m, int argc, const struct slice *argv)
{
    struct value *v = model_make(m, argv[1], VALUE_HASH);
    (void)argc;
    for (size_t i = 0; i < v->count; i++)
        if (v->members[i].len == argv[2].len && memcmp(v->members[i].data, argv[2].data, argv[2].len) == 0) {
            v->members[i].score = slice_number(argv[3]);
            return reply_number(0);
        }
    member_insert(v, v->count, slice_number(argv[3]), argv[2]);
    return reply_number(1);
}

static redisReply *command_hincrby(struct redis_model *m, int argc, const struct slice *argv)
{
    struct value *v = model_make(m, argv[1], VALUE_HASH);
    (void)argc;
    for (size_t i = 0; i < v->count; i++)
        if (v->members[i].len == argv[2].len && memcmp(v->members[i].data, argv[2].data, argv[2].len) == 0) {
            v->members[i].score += m->mutation == MUTATION_LOSES_COUNT ? 0 : slice_number(argv[3]);
            return reply_number((long long)v->members[i].score);
        }
    member_insert(v, v->count, slice_number(argv[3]), argv[2]);
    return reply_number((long long)slice_number(argv[3]));
}

static redisReply *command_hgetall(struct redis_model *m, int argc, const struct slice *argv)
{
    const struct value *v = model_find(m, argv[1]);
    redisReply *r = reply_array(v ? 2 * v->count : 0);
    (void)argc;
    for (size_t i = 0; v && i < v->count; i++) {
        char text[24];
        int n = snprintf(text, sizeof text, "%llu", (unsigned long long)v->members[i].score);
        r->element[2 * i] = reply_text((struct slice){v->members[i].data, v->members[i].len});
        r->element[2 * i + 1] = reply_text((struct slice){(const uint8_t *)text, (size_t)n});
    }
    return r;
}

/* All in one go. */
static redisReply *command_scan(struct redis_model *m, int argc, const struct slice *argv)
{
    static const uint8_t end[] = "0";
    redisReply *r = reply_array(2);
    size_t n = 0;
    (void)argc, (void)argv;
    for (size_t i = 0; i < 256; i++)
        for (const struct value *v = m->buckets[i]; v; v = v->next)
            n++;
    r->element[0] = reply_text((struct slice){end, 1});
    r->element[1] = reply_array(n);
    n = 0;
    for (size_t i = 0; i < 256; i++)
        for (const struct value *v = m->buckets[i]; v; v = v->next)
            r->element[1]->element[n++] = reply_text((struct slice){(const uint8_t *)v->key, v->key_len});
    return r;
}

static redisReply *command_expire(struct redis_model *m, int argc, const struct slice *argv)
{
    struct value *v = model_find(m, argv[1]);
    (void)argc;
    if (v)
        v->expires_ms = m->now_ms + (int64_t)slice_number(argv[2]) * 1000;
    return reply_number(v != NULL);
}

static redisReply *command_publish(struct redis_model *m, int argc, const struct slice *argv)
{
    (void)m, (void)argc, (void)argv;
    return reply_number(0);
}

redisReply *redis_model_command(struct redis_model *m, int argc, const struct slice *argv)
{
    static const struct {
        const char *name;
        redisReply *(*fn)(struct redis_model *m, int argc, const struct slice *argv);
    } commands[] = {{"GET", command_get},           {"SET", command_set},        {"DEL", command_del},
                    {"SADD", command_sadd},         {"SREM", command_srem},      {"SISMEMBER", command_sismember},
                    {"SMEMBERS", command_smembers}, {"RPUSH", command_rpush},    {"LLEN", command_llen},
                    {"BLMPOP", command_blmpop},     {"INFO", command_info},      {"PUBLISH", command_publish},
                    {"EXPIRE", command_expire},     {"SCAN", command_scan},      {"HSET", command_hset},
                    {"HGETALL", command_hgetall},   {"HINCRBY", command_hincrby}};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (is(argv[0], commands[i].name))
            return commands[i].fn(m, argc, argv);
    fprintf(stderr, "redis_model: no model of %.*s\n", (int)argv[0].len, (const char *)argv[0].data);
    abort();
}

redisReply *redis_model_script(struct redis_model *m, const char *script, int keys, int argc, const struct slice *argv)
{
    for (const struct model_script *s = model_scripts; s->name; s++)
        if (strcmp(s->name, script) == 0)
            return s->fn(m, argv, argv + keys, argc - keys);
    fprintf(stderr, "redis_model: no model of %s.lua\n", script);
    abort();
}
