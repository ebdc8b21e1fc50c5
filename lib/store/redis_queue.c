#include "lib/store/redis_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/list.h"
#include "lib/base/log.h"

/* Failures that find room though there is no memory, besides those of all that is under way. */
#define FAILURES_SPARE 64

/* --- room for answers without a reply ----------------------------------------------------------------------------- */

/* For `n` more than there are. */
static bool failures_reserve(struct redis *redis, size_t n)
{
    size_t need = redis->failure_count + n, room = redis->failure_room ? redis->failure_room : 2 * FAILURES_SPARE;
    if (redis->failure_first > 0 && redis->failure_first + need > redis->failure_room) {
        memmove(redis->failures, redis->failures + redis->failure_first,
                redis->failure_count * sizeof *redis->failures);
        redis->failure_first = 0;
    }
    if (redis->failure_first + need <= redis->failure_room)
        return true;
    while (room < need)
        room *= 2;
    struct redis_failure *more = realloc(redis->failures, room * sizeof *more);
    if (!more)
        return false;
    redis->failures = more;
    redis->failure_room = room;
    return true;
}

bool redis_failures_make(struct redis *redis)
{
    return failures_reserve(redis, FAILURES_SPARE);
}

/* --- commands that wait for their reply --------------------------------------------------------------------------- */

/* Whoever gets a place here can be told of its loss without memory. */
bool redis_ring_push(struct redis *redis, struct redis_pending p)
{
    if (!failures_reserve(redis, redis->ring_count + 1 + FAILURES_SPARE))
        return false;
    if (redis->ring_count == redis->ring_room) {
        size_t room = redis->ring_room ? redis->ring_room * 2 : 256;
        struct redis_pending *ring = malloc(room * sizeof *ring);
        if (!ring)
            return false;
        for (size_t i = 0; i < redis->ring_count; i++)
            ring[i] = redis->ring[(redis->ring_first + i) & (redis->ring_room - 1)];
        free(redis->ring);
        redis->ring = ring;
        redis->ring_room = room;
        redis->ring_first = 0;
    }
    redis->ring[(redis->ring_first + redis->ring_count++) & (redis->ring_room - 1)] = p;
    return true;
}

struct redis_pending redis_ring_pop(struct redis *redis)
{
    struct redis_pending p = redis->ring[redis->ring_first];
    redis->ring_first = (redis->ring_first + 1) & (redis->ring_room - 1);
    redis->ring_count--;
    return p;
}

/* --- answers without a reply -------------------------------------------------------------------------------------- */

void redis_fail_soon(struct redis *redis, redis_done_fn *done, void *arg, enum err err)
{
    if (!done)
        return;
    if (!failures_reserve(redis, 1)) {
        /* A callback that never comes would hang its owner for ever. */
        log_error("out_of_memory", "where=redis");
        abort();
    }
    redis->failures[redis->failure_first + redis->failure_count++] = (struct redis_failure){done, arg, err};
    if (!redis->dead && !ev_is_active(&redis->soon)) {
        ev_timer_set(&redis->soon, 0., 0.);
        ev_timer_start(redis->loop, &redis->soon);
    }
}

void redis_destroy(struct redis *redis)
{
    redis_address_free(&redis->address);
    redis_scripts_free(&redis->scripts);
    buf_free(&redis->out);
    free(redis->ring);
    free(redis->failures);
    free(redis->channel);
    free(redis);
}

void redis_enter(struct redis *redis)
{
    redis->depth++;
}

/* False when it was freed meanwhile. */
bool redis_leave(struct redis *redis)
{
    bool alive = !redis->dead;
    if (--redis->depth == 0 && !alive)
        redis_destroy(redis);
    return alive;
}

/* The first of them; false when there is none. */
static bool take_failure(struct redis *redis, struct redis_failure *f)
{
    if (redis->failure_count == 0)
        return false;
    *f = redis->failures[redis->failure_first++];
    if (--redis->failure_count == 0)
        redis->failure_first = 0;
    return true;
}

void redis_fail_all(struct redis *redis)
{
    struct redis_failure f;
    while (take_failure(redis, &f))
        f.done(f.arg, ERR_CLOSED, NULL);
}

/* Those that come meanwhile have a turn of their own. */
void redis_on_soon(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct redis *redis = container_of(w, struct redis, soon);
    struct redis_failure f;
    redis_enter(redis);
    for (size_t n = redis->failure_count; n > 0 && take_failure(redis, &f); n--)
        f.done(f.arg, redis->dead ? ERR_CLOSED : f.err, NULL);
    redis_leave(redis);
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static uint8_t *put_number(uint8_t *p, char type, size_t v)
{
    uint8_t digits[20];
    int n = 0;
    *p++ = (uint8_t)type;
    do
        digits[n++] = (uint8_t)('0' + v % 10);
    while ((v /= 10));
    while (n > 0)
        *p++ = digits[--n];
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

void redis_put_command(struct buf *out, int argc, const struct slice *argv)
{
    size_t size = 32;
    for (int i = 0; i < argc; i++)
        size += argv[i].len + 32;
    uint8_t *start = buf_reserve(out, size), *p = start;
    if (!p)
        return;
    p = put_number(p, '*', (size_t)argc);
    for (int i = 0; i < argc; i++) {
        p = put_number(p, '$', argv[i].len);
        if (argv[i].len)
            memcpy(p, argv[i].data, argv[i].len);
        p += argv[i].len;
        *p++ = '\r';
        *p++ = '\n';
    }
    buf_commit(out, (size_t)(p - start));
}
