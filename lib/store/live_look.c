#include "lib/store/live_look.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/live_internal.h"

#define SCAN_COUNT    "1000"
#define REPORT_LIFE_S "60"
#define BATCHES_LAST  "49999" /* in one answer */

struct looking {
    void *arg;
    union {
        live_look_fn *look;
        live_keys_fn *keys;
        live_batches_fn *batches;
        live_report_fn *report;
        live_waiting_fn *waiting;
    } fn;
};

static struct looking *looking_new(void *arg)
{
    struct looking *l = calloc(1, sizeof *l);
    if (!l)
        abort(); /* as request_new */
    l->arg = arg;
    return l;
}

/* "" for what is no text; hiredis ends each with a NUL. */
static const char *text_of(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? reply->str : "";
}

static bool is_array(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY;
}

static struct args words(const char *first)
{
    struct args a = {0};
    args_raw(&a, first, strlen(first));
    return a;
}

/* --- one batch in one block --------------------------------------------------------------------------------------- */

static void reply_look(void *arg, enum err err, const redisReply *reply)
{
    struct looking l = *(struct looking *)arg;
    struct live_seen seen = {{0}, {0}, false};
    free(arg);
    if (!err && (!is_array(reply) || reply->elements != 3))
        err = ERR_PROTOCOL;
    if (!err) {
        seen.states = reply_slice(reply->element[0]);
        seen.listed = reply->element[1]->type == REDIS_REPLY_INTEGER && reply->element[1]->integer > 0;
        seen.presence = reply_slice(reply->element[2]);
    }
    l.fn.look(l.arg, err, &seen);
}

void live_look(struct live *live, struct live_place place, live_look_fn *done, void *arg)
{
    struct args a = {0};
    struct looking *l = looking_new(arg);
    l->fn.look = done;
    args_block_key(&a, place.tenant, place.block, "presence");
    args_block_key(&a, place.tenant, place.block, "open");
    args_state_key(&a, place);
    for (uint64_t priority = 1; priority <= LIVE_CLASSES; priority++)
        args_printf(&a, "%llu", (unsigned long long)((priority << 48) + place.batch));
    redis_script(live->moves, "look", 3, a.n, a.v, reply_look, l);
}

/* --- one device ----------------------------------------------------------------------------------------------------
 */

#define WAITING_ITEM 9 /* bytes: batch, state */

static void reply_device(void *arg, enum err err, const redisReply *reply)
{
    struct looking l = *(struct looking *)arg;
    free(arg);
    if (!err && (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2))
        err = ERR_PROTOCOL;
    struct slice worker = {0}, packed = {0};
    if (!err) {
        worker = reply_slice(reply->element[0]);
        packed = reply_slice(reply->element[1]);
    }
    size_t n = packed.len / WAITING_ITEM;
    struct live_pending *commands = calloc(n + 1, sizeof *commands);
    if (!commands)
        abort();
    for (size_t i = 0; i < n; i++)
        commands[i] = (struct live_pending){load_u64le(packed.data + i * WAITING_ITEM),
                                            packed.data[i * WAITING_ITEM + sizeof(uint64_t)]};
    l.fn.waiting(l.arg, err, worker.len == 2 ? load_u16le(worker.data) : 0, commands, n);
    free(commands);
}

void live_waiting(struct live *live, uint32_t tenant, uint32_t block, uint16_t slot, live_waiting_fn *done, void *arg)
{
    struct args a = {0};
    struct looking *l = looking_new(arg);
    l->fn.waiting = done;
    args_block_key(&a, tenant, block, "presence");
    args_block_key(&a, tenant, block, "open");
    args_printf(&a, "%u", slot);
    args_block_key(&a, tenant, block, "state:");
    args_printf(&a, "%d", WAITING_BATCHES);
    redis_script(live->moves, "waiting", 2, a.n, a.v, reply_device, l);
}

/* --- all keys ------------------------------------------------------------------------------------------------------
 */

static struct live_key read_key(const char *name)
{
    struct live_key key = {0};
    unsigned long long batch = 0;
    unsigned tenant = 0, block = 0, worker = 0;
    int end = 0;
    if (sscanf(name, "{t%u.b%u}:state:%llu", &tenant, &block, &batch) == 3)
        key.kind = LIVE_KEY_STATE;
    else if (sscanf(name, "{t%u.b%u}:values:%llu", &tenant, &block, &batch) == 3)
        key.kind = LIVE_KEY_VALUES;
    else if (sscanf(name, "{t%u.b%u}:open%n", &tenant, &block, &end) == 2 && end && !name[end])
        key.kind = LIVE_KEY_OPEN;
    else if (sscanf(name, "batch:%llu", &batch) == 1)
        key.kind = LIVE_KEY_SPEC;
    else if (sscanf(name, "cancel:%llu", &batch) == 1 || sscanf(name, "broken:%llu", &batch) == 1 ||
             (sscanf(name, "confirm:%llu", &batch) == 1 && batch))
        key.kind = LIVE_KEY_CANCEL;
    else if (sscanf(name, "{w%u}:inbox:%n", &worker, &end) == 1 && end)
        key.kind = LIVE_KEY_INBOX;
    else if (sscanf(name, "worker:%u%n", &worker, &end) == 1 && end && !name[end])
        key.kind = LIVE_KEY_LEASE;
    key.place = (struct live_place){tenant, block, batch};
    key.worker = (uint16_t)worker;
    return key;
}

static void reply_keys(void *arg, enum err err, const redisReply *reply)
{
    struct looking l = *(struct looking *)arg;
    free(arg);
    if (!err && (!is_array(reply) || reply->elements != 2 || !is_array(reply->element[1])))
        err = ERR_PROTOCOL;
    size_t n = err ? 0 : reply->element[1]->elements;
    struct live_key *keys = calloc(n + 1, sizeof *keys);
    if (!keys) {
        err = ERR_NOMEM;
        n = 0;
    }
    for (size_t i = 0; i < n; i++)
        keys[i] = read_key(text_of(reply->element[1]->element[i]));
    l.fn.keys(l.arg, err, err ? 0 : strtoull(text_of(reply->element[0]), NULL, 10), keys, n);
    free(keys);
}

void live_keys(struct live *live, uint64_t cursor, live_keys_fn *done, void *arg)
{
    struct args a = words("SCAN");
    struct looking *l = looking_new(arg);
    l->fn.keys = done;
    args_printf(&a, "%llu", (unsigned long long)cursor);
    args_raw(&a, "COUNT", 5);
    args_raw(&a, SCAN_COUNT, strlen(SCAN_COUNT));
    redis_command(live->moves, a.n, a.v, reply_keys, l);
}

static void reply_batches(void *arg, enum err err, const redisReply *reply)
{
    struct looking l = *(struct looking *)arg;
    free(arg);
    size_t n = !err && is_array(reply) ? reply->elements : 0;
    uint64_t *batches = calloc(n + 1, sizeof *batches);
    if (!batches) {
        err = ERR_NOMEM;
        n = 0;
    }
    for (size_t i = 0; i < n; i++) { /* behind first slot and number of slots */
        struct slice member = reply_slice(reply->element[i]);
        batches[i] = member.len > 4 ? strtoull((const char *)member.data + 4, NULL, 10) : 0;
    }
    l.fn.batches(l.arg, err, batches, n);
    free(batches);
}

void live_batches(struct live *live, uint32_t tenant, uint32_t block, live_batches_fn *done, void *arg)
{
    struct args a = words("ZRANGE");
    struct looking *l = looking_new(arg);
    l->fn.batches = done;
    args_block_key(&a, tenant, block, "open");
    args_raw(&a, "0", 1);
    args_raw(&a, BATCHES_LAST, strlen(BATCHES_LAST));
    redis_command(live->moves, a.n, a.v, reply_batches, l);
}

/* --- small questions -----------------------------------------------------------------------------------------------
 */

void live_spec_there(struct live *live, uint64_t batch, live_int_fn *done, void *arg)
{
    struct args a = words("EXISTS");
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    args_printf(&a, "batch:%llu", (unsigned long long)batch);
    live_send(live, &a, reply_integer, r);
}

static void reply_there(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    /* A lease is empty once it has been called dead. */
    r->fn.integer(r->arg, err, !err && reply->type == REDIS_REPLY_STRING && reply->len > 0);
    free(r);
}

void live_worker_there(struct live *live, uint16_t worker, live_int_fn *done, void *arg)
{
    struct args a = words("GET");
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    args_printf(&a, "worker:%u", worker);
    live_send(live, &a, reply_there, r);
}

void live_values_there(struct live *live, struct live_place place, live_int_fn *done, void *arg)
{
    struct args a = words("EXISTS");
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    args_values_key(&a, place);
    live_send(live, &a, reply_integer, r);
}

/* Three answers, of which the last one calls back. */
static void reply_waiting(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    if (!err && reply->type == REDIS_REPLY_INTEGER)
        r->number += (uint64_t)reply->integer;
    if (--r->count > 0)
        return;
    r->fn.integer(r->arg, err, (int64_t)r->number);
    free(r);
}

void live_inbox_waiting(struct live *live, uint16_t worker, live_int_fn *done, void *arg)
{
    static const char *const names[LIVE_CLASSES] = {"urgent", "normal", "bulk"};
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    r->count = LIVE_CLASSES;
    for (int i = 0; i < LIVE_CLASSES; i++) {
        struct args a = words("LLEN");
        args_printf(&a, "{w%u}:inbox:%s", worker, names[i]);
        live_send(live, &a, reply_waiting, r);
    }
}

void live_worker_list(struct live *live, uint16_t worker)
{
    struct args a = words("SADD");
    args_raw(&a, "workers", 7);
    args_printf(&a, "%u", worker);
    redis_command(live->moves, a.n, a.v, NULL, NULL);
}

/* --- reports -------------------------------------------------------------------------------------------------------
 */

static void args_report(struct args *a, uint16_t worker, uint64_t number)
{
    args_printf(a, "{w%u}:report:%llu", worker, (unsigned long long)number);
}

static void args_put_report(struct args *a, uint16_t worker, uint64_t number)
{
    args_report(a, worker, number);
    args_raw(a, REPORT_LIFE_S, strlen(REPORT_LIFE_S));
    args_raw(a, "HSET", 4);
}

void live_report_put(struct live *live, uint16_t worker, uint64_t number, uint32_t tenant, uint32_t block,
                     const uint16_t *slots, size_t count)
{
    struct args a = {0};
    uint8_t room[2 * BLOCK_SLOTS];
    args_put_report(&a, worker, number);
    args_printf(&a, "%u.%u", tenant, block);
    args_slots(&a, room, slots, count < BLOCK_SLOTS ? count : BLOCK_SLOTS);
    redis_script(live->moves, "limited", 1, a.n, a.v, NULL, NULL);
}

void live_report_end(struct live *live, uint16_t worker, uint64_t number, int64_t waiting)
{
    struct args a = {0};
    args_put_report(&a, worker, number);
    args_raw(&a, "end", 3);
    args_printf(&a, "%lld", (long long)waiting);
    redis_script(live->moves, "limited", 1, a.n, a.v, NULL, NULL);
}

static void reply_report(void *arg, enum err err, const redisReply *reply)
{
    struct looking l = *(struct looking *)arg;
    free(arg);
    size_t n = 0, pairs = !err && is_array(reply) ? reply->elements / 2 : 0;
    struct live_report *reports = calloc(pairs + 1, sizeof *reports);
    int64_t waiting = 0;
    bool ended = false;
    if (!reports) {
        err = ERR_NOMEM;
        pairs = 0;
    }
    for (size_t i = 0; i < pairs; i++) {
        const redisReply *name = reply->element[2 * i], *value = reply->element[2 * i + 1];
        if (sscanf(text_of(name), "%u.%u", &reports[n].tenant, &reports[n].block) == 2) {
            reports[n++].slots = reply_slice(value);
        } else {
            ended = true;
            waiting = strtoll(text_of(value), NULL, 10);
        }
    }
    l.fn.report(l.arg, err ? err : ended ? ERR_OK : ERR_NOT_FOUND, waiting, reports, n);
    free(reports);
}

void live_report_get(struct live *live, uint16_t worker, uint64_t number, live_report_fn *done, void *arg)
{
    struct args a = words("HGETALL");
    struct looking *l = looking_new(arg);
    l->fn.report = done;
    args_report(&a, worker, number);
    redis_command(live->moves, a.n, a.v, reply_report, l);
}
