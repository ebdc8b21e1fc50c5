/* Moves of devices and workers: attach, detach, presence, leases. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/store/live.h"
#include "lib/store/live_internal.h"

#define PENDING_BYTES 9  /* of one command in an answer of attach: batch u64, state u8 */
#define DEAD          "" /* what worker:<n> holds once the worker has been called dead; no instance is empty */

static void args_prefix(struct args *a, uint32_t tenant, uint32_t block)
{
    args_block_key(a, tenant, block, "state:");
}

/* --- attach, detach, reap, presence ------------------------------------------------------------------------------- */

/* Fills `attached` and `pending` from the answer; false when it is malformed. */
static bool read_attach(const redisReply *reply, struct live_attached *attached, size_t count,
                        struct live_pending *pending)
{
    for (size_t k = 1; k + 1 < reply->elements; k += 2) {
        struct slice bytes = reply_slice(reply->element[k + 1]);
        long long i = reply->element[k]->integer;
        if (reply->element[k]->type != REDIS_REPLY_INTEGER || i < 0 || (size_t)i >= count || bytes.len % PENDING_BYTES)
            return false;
        attached[i].pending = pending;
        attached[i].count = bytes.len / PENDING_BYTES;
        for (size_t n = 0; n < attached[i].count; n++, pending++)
            *pending = (struct live_pending){load_u64le(bytes.data + n * PENDING_BYTES),
                                             bytes.data[n * PENDING_BYTES + PENDING_BYTES - 1]};
    }
    return true;
}

static void reply_attach(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    struct live_attached *attached = (struct live_attached *)r->extra;
    struct live_pending *pending = NULL;
    struct slice previous = {0};
    size_t total = 0;
    if (!err && (reply->type != REDIS_REPLY_ARRAY || reply->elements < 1))
        err = ERR_PROTOCOL;
    if (!err) {
        previous = reply_slice(reply->element[0]);
        for (size_t k = 2; k < reply->elements; k += 2)
            total += reply_slice(reply->element[k]).len / PENDING_BYTES;
        pending = calloc(total + 1, sizeof *pending);
        if (!pending)
            err = ERR_NOMEM;
        else if (previous.len != 2 * r->count || !read_attach(reply, attached, r->count, pending))
            err = ERR_PROTOCOL;
    }
    for (size_t i = 0; !err && i < r->count; i++)
        attached[i].previous = load_u16le(previous.data + 2 * i);
    r->fn.attach(r->arg, err, err ? NULL : attached, err ? 0 : r->count);
    free(pending);
    free(r);
}

void live_attach(struct live *live, uint32_t tenant, uint32_t block, uint16_t worker, const uint16_t *slots,
                 size_t count, unsigned most, live_attach_fn *done, void *arg)
{
    struct args a = {0};
    uint8_t room[2 * BLOCK_SLOTS];
    if (count > BLOCK_SLOTS)
        abort(); /* a block has no more */
    struct request *r = request_new(live, arg, count * sizeof(struct live_attached));
    struct live_attached *attached = (struct live_attached *)r->extra;
    r->fn.attach = done;
    r->count = count;
    for (size_t i = 0; i < count; i++)
        attached[i].slot = slots[i];
    args_block_key(&a, tenant, block, "presence");
    args_block_key(&a, tenant, block, "open");
    args_printf(&a, "%u", worker);
    args_prefix(&a, tenant, block);
    args_slots(&a, room, slots, count);
    args_printf(&a, "%u", most);
    live_run(live, "attach", 2, &a, reply_attach, r);
}

void live_detach(struct live *live, uint32_t tenant, uint32_t block, uint16_t worker, const uint16_t *slots,
                 size_t count, live_done_fn *done, void *arg)
{
    struct args a = {0};
    uint8_t room[2 * BLOCK_SLOTS];
    if (count > BLOCK_SLOTS)
        abort(); /* a block has no more */
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_block_key(&a, tenant, block, "presence");
    args_block_key(&a, tenant, block, "open");
    args_printf(&a, "%u", worker);
    args_prefix(&a, tenant, block);
    args_slots(&a, room, slots, count);
    live_run(live, "detach", 2, &a, reply_done, r);
}

void live_reap(struct live *live, uint32_t tenant, uint32_t block, uint16_t worker, live_int_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.integer = done;
    args_block_key(&a, tenant, block, "presence");
    args_block_key(&a, tenant, block, "open");
    args_printf(&a, "%u", worker);
    args_prefix(&a, tenant, block);
    live_run(live, "reap", 2, &a, reply_integer, r);
}

static void reply_presence(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    r->fn.bytes(r->arg, err, reply_slice(reply));
    free(r);
}

void live_presence(struct live *live, uint32_t tenant, uint32_t block, live_bytes_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.bytes = done;
    args_raw(&a, "GET", 3);
    args_block_key(&a, tenant, block, "presence");
    live_send(live, &a, reply_presence, r);
}

/* --- leases ------------------------------------------------------------------------------------------------------- */

/* Taking a number: is it in `workers` still, SET NX, and into `workers`. */
struct acquire {
    int64_t ttl_ms;
    uint16_t number;
    char instance[65];
};

static void acquire_end(struct request *r, enum err err)
{
    r->fn.done(r->arg, err);
    free(r);
}

static void acquire_added(void *arg, enum err err, const redisReply *reply)
{
    (void)reply;
    acquire_end(arg, err);
}

static void acquire_set(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    const struct acquire *q = (const struct acquire *)r->extra;
    struct args a = {0};
    if (err || reply->type == REDIS_REPLY_NIL) {
        acquire_end(r, err ? err : ERR_FENCED);
        return;
    }
    args_raw(&a, "SADD", 4);
    args_raw(&a, "workers", 7);
    args_printf(&a, "%u", q->number);
    live_send(r->live, &a, acquire_added, r);
}

static void acquire_looked(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    const struct acquire *q = (const struct acquire *)r->extra;
    struct args a = {0};
    if (!err && reply->type != REDIS_REPLY_INTEGER)
        err = ERR_PROTOCOL;
    if (err || reply->integer) {
        acquire_end(r, err ? err : ERR_FENCED); /* another's, or a dead worker's slots are not reaped yet */
        return;
    }
    args_raw(&a, "SET", 3);
    args_printf(&a, "worker:%u", q->number);
    args_raw(&a, q->instance, strlen(q->instance));
    args_raw(&a, "NX", 2);
    args_raw(&a, "PX", 2);
    args_printf(&a, "%lld", (long long)q->ttl_ms);
    live_send(r->live, &a, acquire_set, r);
}

void live_worker_acquire(struct live *live, uint16_t worker, const char *instance, int64_t ttl_ms, live_done_fn *done,
                         void *arg)
{
    struct request *r = request_new(live, arg, sizeof(struct acquire));
    struct acquire *q = (struct acquire *)r->extra;
    struct args a = {0};
    r->fn.done = done;
    q->ttl_ms = ttl_ms;
    q->number = worker;
    strncpy(q->instance, instance, sizeof q->instance - 1);
    args_raw(&a, "SISMEMBER", 9);
    args_raw(&a, "workers", 7);
    args_printf(&a, "%u", worker);
    live_send(live, &a, acquire_looked, r);
}

static void reply_lease(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    if (!err && reply->type == REDIS_REPLY_INTEGER)
        err = reply->integer > 0 ? ERR_OK : reply->integer < 0 ? ERR_FENCED : ERR_NOT_FOUND;
    r->fn.done(r->arg, err);
    free(r);
}

static void lease_script(struct live *live, const char *script, uint16_t worker, const char *instance, int64_t ttl_ms,
                         redis_done_fn *reply, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_printf(&a, "worker:%u", worker);
    args_raw(&a, instance, strlen(instance));
    args_printf(&a, "%lld", (long long)ttl_ms);
    live_run(live, script, 1, &a, reply, r);
}

void live_worker_renew(struct live *live, uint16_t worker, const char *instance, int64_t ttl_ms, live_done_fn *done,
                       void *arg)
{
    lease_script(live, "worker_renew", worker, instance, ttl_ms, reply_lease, done, arg);
}

void live_worker_reclaim(struct live *live, uint16_t worker, const char *instance, int64_t ttl_ms, live_done_fn *done,
                         void *arg)
{
    struct args a = {0};
    lease_script(live, "worker_reclaim", worker, instance, ttl_ms, reply_lease, done, arg);
    /* Behind it: one that is listed without a lease is reaped. */
    args_raw(&a, "SADD", 4);
    args_raw(&a, "workers", 7);
    args_printf(&a, "%u", worker);
    redis_command(live->moves, a.n, a.v, NULL, NULL);
}

void live_worker_release(struct live *live, uint16_t worker, const char *instance, live_done_fn *done, void *arg)
{
    lease_script(live, "worker_release", worker, instance, 0, reply_done, done, arg);
}

/* All numbers, then for each one script that looks at the lease, pipelined. Who asks for all is told nothing by a Redis
 * that does not hold what it was filled with, before the numbers are read and after: had it been emptied before and
 * filled between, nobody would be listed, nor would it be known that others may be there. */
enum { LIST_AS_IT_IS, LIST_FILLED, LIST_NOT_FILLED };
struct numbers {
    size_t n, left;
    enum err err;
    struct live_worker v[];
};
struct numbers_part {
    struct request *whole;
    size_t index;
};

static void reply_dead(void *arg, enum err err, const redisReply *reply)
{
    struct numbers_part *part = arg;
    struct request *r = part->whole;
    struct numbers *w = (struct numbers *)r->extra;
    if (err)
        w->err = err;
    else
        w->v[part->index].alive = reply->type == REDIS_REPLY_INTEGER && reply->integer == 0;
    free(part);
    if (--w->left > 0)
        return;
    r->fn.workers(r->arg, w->err, w->v, w->err ? 0 : w->n);
    free(r);
}

static void look_at_leases(struct request *r)
{
    struct numbers *w = (struct numbers *)r->extra;
    w->left = w->n;
    for (size_t i = 0; i < w->n; i++) {
        struct args a = {0};
        struct numbers_part *part = malloc(sizeof *part);
        if (!part)
            abort();
        *part = (struct numbers_part){r, i};
        args_printf(&a, "worker:%u", w->v[i].number);
        args_raw(&a, DEAD, strlen(DEAD));
        redis_script(r->live->moves, "worker_dead", 1, a.n, a.v, reply_dead, part);
    }
}

static void list_workers(struct request *r)
{
    const struct numbers *w = (const struct numbers *)r->extra;
    if (w->n > 0) {
        look_at_leases(r);
        return;
    }
    r->fn.workers(r->arg, ERR_OK, NULL, 0);
    free(r);
}

static void was_filled(void *arg, enum err err, int64_t filled)
{
    ((struct request *)arg)->count = !err && filled ? LIST_FILLED : LIST_NOT_FILLED;
}

static void is_filled(void *arg, enum err err, int64_t filled)
{
    struct request *r = arg;
    if (!err && filled) {
        list_workers(r);
        return;
    }
    r->fn.workers(r->arg, err ? err : ERR_UNAVAILABLE, NULL, 0);
    free(r);
}

static void reply_workers(void *arg, enum err err, const redisReply *reply)
{
    struct request *first = arg;
    size_t asked = first->count;
    size_t n = !err && reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
    struct request *r = request_new(first->live, first->arg, sizeof(struct numbers) + n * sizeof(struct live_worker));
    struct numbers *w = (struct numbers *)r->extra;
    r->fn = first->fn;
    free(first);
    for (size_t i = 0; i < n; i++)
        if ((w->v[w->n].number = reply_worker(reply->element[i])))
            w->n++;
    if (err || asked == LIST_NOT_FILLED) {
        r->fn.workers(r->arg, err ? err : ERR_UNAVAILABLE, NULL, 0);
        free(r);
    } else if (asked == LIST_FILLED) {
        live_generation_get(r->live, is_filled, r);
    } else {
        list_workers(r);
    }
}

static void ask_workers(struct live *live, bool all, live_workers_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.workers = done;
    r->count = all ? LIST_NOT_FILLED : LIST_AS_IT_IS;
    if (all)
        live_generation_get(live, was_filled, r);
    args_raw(&a, "SMEMBERS", 8);
    args_raw(&a, "workers", 7);
    live_send(live, &a, reply_workers, r);
}

void live_workers(struct live *live, live_workers_fn *done, void *arg)
{
    ask_workers(live, false, done, arg);
}

void live_workers_all(struct live *live, live_workers_fn *done, void *arg)
{
    ask_workers(live, true, done, arg);
}

void live_workers_unknown(struct live *live, int64_t lease_ms)
{
    struct args member = {0}, lease = {0};
    args_raw(&member, "SADD", 4);
    args_raw(&member, "workers", 7);
    args_printf(&member, "%u", LIVE_UNKNOWN_WORKER);
    redis_command(live->moves, member.n, member.v, NULL, NULL);
    args_raw(&lease, "SET", 3);
    args_printf(&lease, "worker:%u", LIVE_UNKNOWN_WORKER);
    args_raw(&lease, "unknown", 7);
    args_raw(&lease, "PX", 2);
    args_printf(&lease, "%" PRId64, lease_ms);
    redis_command(live->moves, lease.n, lease.v, NULL, NULL);
}

/* Its lease comes free last: who takes it again is listed then, and stays so. */
void live_worker_forget(struct live *live, uint16_t worker, live_done_fn *done, void *arg)
{
    struct args inboxes = {0}, member = {0};
    args_raw(&inboxes, "DEL", 3);
    for (int class = 0; class < LIVE_CLASSES; class ++)
        args_inbox_key(&inboxes, worker, (enum live_class) class);
    redis_command(live->moves, inboxes.n, inboxes.v, NULL, NULL);
    args_raw(&member, "SREM", 4);
    args_raw(&member, "workers", 7);
    args_printf(&member, "%u", worker);
    redis_command(live->moves, member.n, member.v, NULL, NULL);
    live_worker_release(live, worker, DEAD, done, arg);
}
