#include "lib/store/redis_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/list.h"
#include "lib/base/log.h"

/* --- commands that wait for their reply --------------------------------------------------------------------------- */

bool redis_ring_push(struct redis *redis, struct redis_pending p)
{
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
    if (redis->failure_count == redis->failure_room) {
        size_t room = redis->failure_room ? redis->failure_room * 2 : 64;
        struct redis_failure *more = realloc(redis->failures, room * sizeof *more);
        if (!more) {
            /* A callback that never comes would hang its owner for ever. */
            log_error("out_of_memory", "where=redis");
            abort();
        }
        redis->failures = more;
        redis->failure_room = room;
    }
    redis->failures[redis->failure_count++] = (struct redis_failure){done, arg, err};
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

void redis_on_soon(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct redis *redis = container_of(w, struct redis, soon);
    struct redis_failure *now = redis->failures;
    size_t n = redis->failure_count;
    redis->failures = NULL;
    redis->failure_count = redis->failure_room = 0;
    redis_enter(redis);
    for (size_t i = 0; i < n; i++)
        now[i].done(now[i].arg, redis->dead ? ERR_CLOSED : now[i].err, NULL);
    redis_leave(redis);
    free(now);
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
