/* Moves of batches: specs, route, record, hand back, apply, close, states. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/live.h"
#include "lib/store/live_internal.h"

#define FAST_ROUTE_MIN 64 /* slots; a shorter span costs less in Lua than its presence on the wire */
#define MEMBER_MAX     25
#define RECORD_FEW     24 /* FEW of prelude.lua: up to so many events go sorted, and come back as single bytes */

void live_put_spec(struct live *live, uint64_t batch, struct slice spec, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_raw(&a, "SET", 3);
    args_printf(&a, "batch:%llu", (unsigned long long)batch);
    args_slice(&a, spec);
    live_send(live, &a, reply_done, r);
}

void live_get_spec(struct live *live, uint64_t batch, live_bytes_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.bytes = done;
    args_raw(&a, "GET", 3);
    args_printf(&a, "batch:%llu", (unsigned long long)batch);
    live_send(live, &a, reply_bytes, r);
}

void live_drop_spec(struct live *live, uint64_t batch, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_raw(&a, "DEL", 3);
    args_printf(&a, "batch:%llu", (unsigned long long)batch);
    args_printf(&a, "cancel:%llu", (unsigned long long)batch);
    args_printf(&a, "confirm:%llu", (unsigned long long)batch);
    args_printf(&a, "broken:%llu", (unsigned long long)batch);
    live_send(live, &a, reply_done, r);
}

void live_put_values(struct live *live, struct live_place place, struct slice values, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_raw(&a, "SET", 3);
    args_values_key(&a, place);
    args_slice(&a, values);
    live_send(live, &a, reply_done, r);
}

void live_get_values(struct live *live, struct live_place place, live_bytes_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.bytes = done;
    args_raw(&a, "GET", 3);
    args_values_key(&a, place);
    live_send(live, &a, reply_bytes, r);
}

/* As apply() of prelude.lua. */
/* --- route ------------------------------------------------------------------------------------------------------- */

/* Collects routed slots by worker. A block's devices are on few workers: a linear search, the last hit first. */
struct routes {
    struct live_routed *v;
    size_t n, room, last;
};

static bool routes_add(struct routes *routes, uint16_t worker, unsigned slot)
{
    size_t i = routes->last;
    if (i >= routes->n || routes->v[i].worker != worker) {
        for (i = 0; i < routes->n && routes->v[i].worker != worker; i++)
            ;
        if (i == routes->n) {
            if (routes->n == routes->room) {
                size_t room = routes->room ? routes->room * 2 : 4;
                struct live_routed *v = realloc(routes->v, room * sizeof *v);
                if (!v)
                    return false;
                routes->v = v;
                routes->room = room;
            }
            routes->v[routes->n++] = (struct live_routed){.worker = worker};
        }
        routes->last = i;
    }
    bitmap_set(&routes->v[i].slots, slot);
    return true;
}

/* What a route request keeps: the span, and on the fast path the belief and what follows from it. */
struct route_kept {
    uint16_t first, count;
    bool fast;
    uint8_t bytes[]; /* count states after, then presence of the span */
};

static enum err routes_of(struct routes *routes, unsigned first, unsigned count, const uint8_t *after,
                          const uint8_t *presence)
{
    for (unsigned i = 0; i < count; i++)
        if ((state_of(after[i]) == STATE_ROUTED || state_of(after[i]) == STATE_SENT) &&
            load_u16le(presence + (size_t)i * 2))
            if (!routes_add(routes, load_u16le(presence + (size_t)i * 2), first + i))
                return ERR_NOMEM;
    return ERR_OK;
}

static enum err read_route(struct request *r, const redisReply *reply, struct routes *routes)
{
    const struct route_kept *kept = (const struct route_kept *)r->extra;
    size_t n = kept->count;
    if (reply->type == REDIS_REPLY_STRING)
        return ERR_NOT_FOUND;
    if (reply->type == REDIS_REPLY_INTEGER && kept->fast)
        return routes_of(routes, kept->first, kept->count, kept->bytes, kept->bytes + n);
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
        return ERR_PROTOCOL;
    struct slice presence = reply_slice(reply->element[0]);
    struct slice after = reply_slice(reply->element[1]);
    if (after.len != n || (presence.len != 0 && presence.len != 2 * n))
        return ERR_PROTOCOL;
    live_belief_set(r->live, r->place.tenant, r->place.block, kept->first, kept->count, presence);
    return presence.len ? routes_of(routes, kept->first, kept->count, after.data, presence.data) : ERR_OK;
}

static void reply_route(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    struct routes routes = {0};
    if (!err)
        err = read_route(r, reply, &routes);
    r->fn.route(r->arg, err, routes.v, err ? 0 : routes.n);
    free(routes.v);
    free(r);
}

/* Fills what the fast path needs: the states that routing on the belief would give. False when there is no belief. */
static bool believe(struct live *live, struct live_place place, const struct state_string *s, struct route_kept *kept)
{
    const uint8_t *presence = s->count < FAST_ROUTE_MIN ? NULL : live_belief_get(live, place.tenant, place.block);
    if (!presence)
        return false;
    uint8_t *after = kept->bytes, *there = after + s->count;
    memcpy(there, presence + (size_t)s->first * 2, (size_t)s->count * 2);
    memcpy(after, s->states, s->count);
    for (unsigned i = 0; i < s->count; i++)
        if (state_of(after[i]) == STATE_QUEUED && (there[2 * i] | there[2 * i + 1]))
            after[i] = state_apply(after[i], EVENT_ROUTE, 0);
    return true;
}

/* Member of `open`: first slot and number of slots (u16, little endian), then the batch's number in decimal. */
static size_t put_member(char *out, uint64_t batch, const struct state_string *s)
{
    store_u16le((uint8_t *)out, s->first);
    store_u16le((uint8_t *)out + 2, s->count);
    return 4 + (size_t)snprintf(out + 4, MEMBER_MAX - 4, "%llu", (unsigned long long)batch);
}

static void route(struct live *live, struct live_place place, uint64_t rank, struct slice states, bool standing,
                  live_route_fn *done, void *arg)
{
    struct args a = {0};
    struct state_string s;
    struct buf believed = {0};
    char member[MEMBER_MAX];
    if (!state_string_parse(&s, states))
        abort(); /* the caller made it */
    struct request *r = request_new(live, arg, sizeof(struct route_kept) + (size_t)s.count * 3);
    struct route_kept *kept = (struct route_kept *)r->extra;
    r->fn.route = done;
    r->place = place;
    kept->first = s.first;
    kept->count = s.count;
    kept->fast = !standing && believe(live, place, &s, kept);
    if (kept->fast) {
        buf_put(&believed, states.data, STATE_STRING_HEADER);
        buf_put(&believed, kept->bytes, s.count);
        if (believed.failed)
            kept->fast = false;
    }
    args_block_key(&a, place.tenant, place.block, "presence");
    args_block_key(&a, place.tenant, place.block, "open");
    args_state_key(&a, place);
    args_raw(&a, member, put_member(member, place.batch, &s));
    args_printf(&a, "%llu", (unsigned long long)rank);
    args_printf(&a, "%u", s.first);
    args_raw(&a, kept->bytes + s.count, kept->fast ? 2 * (size_t)s.count : 0);
    if (standing)
        args_raw(&a, "-", 1);
    else
        args_raw(&a, buf_slice(&believed).data, kept->fast ? buf_len(&believed) : 0);
    args_slice(&a, states);
    live_run(live, "route", 3, &a, reply_route, r);
    buf_free(&believed);
}

void live_route(struct live *live, struct live_place place, uint64_t rank, struct slice states, live_route_fn *done,
                void *arg)
{
    route(live, place, rank, states, false, done, arg);
}

void live_route_some(struct live *live, struct live_place place, uint64_t rank, struct slice states,
                     live_route_fn *done, void *arg)
{
    route(live, place, rank, states, true, done, arg);
}

const uint8_t *live_presence_seen(struct live *live, uint32_t tenant, uint32_t block)
{
    return live_belief_get(live, tenant, block);
}

static void reply_learn(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    struct slice presence = reply_slice(reply);
    uint8_t whole[PRESENCE_BYTES] = {0};
    if (!err && presence.len && presence.len <= sizeof whole) {
        memcpy(whole, presence.data, presence.len);
        live_belief_set(r->live, r->place.tenant, r->place.block, 0, BLOCK_SLOTS, (struct slice){whole, sizeof whole});
    }
    r->fn.done(r->arg, err);
    free(r);
}

void live_learn(struct live *live, uint32_t tenant, uint32_t block, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    r->place = (struct live_place){tenant, block, 0};
    args_raw(&a, "GET", 3);
    args_block_key(&a, tenant, block, "presence");
    live_send(live, &a, reply_learn, r);
}

/* --- record, hand back, apply, close ------------------------------------------------------------------------------ */

static uint16_t packed_slot(const uint8_t *event)
{
    return load_u16le(event);
}

/* Copies packed events sorted by slot, those of one slot in their order. */
static void sort_events(uint8_t *to, const uint8_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++, from += 4) {
        size_t at = i;
        for (; at > 0 && packed_slot(to + 4 * (at - 1)) > packed_slot(from); at--)
            memcpy(to + 4 * at, to + 4 * (at - 1), 4);
        memcpy(to + 4 * at, from, 4);
    }
}

/* What stood there before the script, by slot; only slots that have an event are filled. False when malformed. */
static bool read_before(uint8_t now[BLOCK_SLOTS], const struct request *r, struct slice bytes)
{
    struct state_string s = {0};
    uint8_t sorted[4 * RECORD_FEW];
    bool few = r->count <= RECORD_FEW;
    if (few && bytes.len && bytes.len != r->count)
        return false;
    if (!few && bytes.len && !state_string_parse(&s, bytes))
        return false;
    if (few)
        sort_events(sorted, r->extra, r->count);
    for (size_t i = 0; i < r->count; i++) {
        uint16_t slot = packed_slot((few ? sorted : r->extra) + 4 * i);
        now[slot % BLOCK_SLOTS] = few && bytes.len ? bytes.data[i] : state_string_get(&s, slot);
    }
    return true;
}

/* Makes the script's transitions again. */
static void reply_record(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    uint8_t now[BLOCK_SLOTS], *before = r->extra + 4 * r->count, *after = before + r->count;
    if (!err && !read_before(now, r, reply_slice(reply)))
        err = ERR_PROTOCOL;
    for (size_t i = 0; i < r->count && !err; i++) {
        const uint8_t *event = r->extra + 4 * i;
        uint8_t *byte = &now[packed_slot(event) % BLOCK_SLOTS];
        before[i] = *byte;
        after[i] = *byte = state_apply(*byte, (enum command_event)event[2], event[3]);
    }
    r->fn.record(r->arg, err, err ? NULL : before, err ? NULL : after, err ? 0 : r->count);
    free(r);
}

void live_record(struct live *live, struct live_place place, const struct live_event *events, size_t count,
                 live_record_fn *done, void *arg)
{
    struct args a = {0};
    uint8_t sorted[4 * RECORD_FEW];
    struct request *r = request_new(live, arg, count * 6); /* events, states before, states after */
    r->fn.record = done;
    r->count = count;
    for (size_t i = 0; i < count; i++) {
        store_u16le(r->extra + 4 * i, events[i].slot);
        r->extra[4 * i + 2] = events[i].event;
        r->extra[4 * i + 3] = events[i].attempts;
    }
    args_state_key(&a, place);
    if (count <= RECORD_FEW)
        sort_events(sorted, r->extra, count);
    args_raw(&a, count <= RECORD_FEW ? sorted : r->extra, count * 4);
    live_run(live, "record", 1, &a, reply_record, r);
}

void live_hand_back(struct live *live, struct live_place place, uint16_t worker, const struct bitmap *slots,
                    live_done_fn *done, void *arg)
{
    struct args a = {0};
    uint16_t list[BLOCK_SLOTS];
    uint8_t room[2 * BLOCK_SLOTS];
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_block_key(&a, place.tenant, place.block, "presence");
    args_state_key(&a, place);
    args_printf(&a, "%u", worker);
    args_slots(&a, room, list, slots_of_bitmap(list, slots));
    live_run(live, "hand_back", 2, &a, reply_done, r);
}

void live_apply(struct live *live, struct live_place place, enum command_event event, const struct bitmap *only,
                live_bytes_fn *done, void *arg)
{
    struct args a = {0};
    uint16_t list[BLOCK_SLOTS];
    uint8_t room[2 * BLOCK_SLOTS];
    struct request *r = request_new(live, arg, 0);
    r->fn.bytes = done;
    args_state_key(&a, place);
    args_printf(&a, "%d", (int)event);
    if (only)
        args_slots(&a, room, list, slots_of_bitmap(list, only));
    live_run(live, "apply", 1, &a, reply_bytes, r);
}

void live_close(struct live *live, struct live_place place, live_done_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);
    r->fn.done = done;
    args_block_key(&a, place.tenant, place.block, "open");
    args_state_key(&a, place);
    args_values_key(&a, place);
    for (uint64_t priority = 1; priority <= LIVE_CLASSES; priority++)
        args_printf(&a, "%llu", (unsigned long long)((priority << 48) + place.batch));
    live_run(live, "close", 3, &a, reply_done, r);
}

/* --- states ------------------------------------------------------------------------------------------------------- */

/* One answer made of many: pipelined GETs whose values are kept until the last has come. */
struct states_kept {
    size_t left;
    enum err err;
    struct buf bytes;
    struct slice *states; /* offsets until the end: data is set when `bytes` grows no more */
};
struct states_part {
    struct request *whole;
    size_t index;
};

static void states_finish(struct request *r)
{
    struct states_kept *kept = (struct states_kept *)r->extra;
    const uint8_t *bytes = buf_slice(&kept->bytes).data;
    size_t at = 0;
    if (kept->bytes.failed)
        kept->err = ERR_NOMEM;
    for (size_t i = 0; i < r->count && !kept->err; i++) {
        /* Redis answers in the order asked, so the values stand in the order of the blocks. */
        kept->states[i].data = bytes + at;
        at += kept->states[i].len;
    }
    r->fn.states(r->arg, kept->err, kept->err ? NULL : kept->states, kept->err ? 0 : r->count);
    buf_free(&kept->bytes);
    free(kept->states);
    free(r);
}

static void reply_states(void *arg, enum err err, const redisReply *reply)
{
    struct states_part *part = arg;
    struct request *r = part->whole;
    struct states_kept *kept = (struct states_kept *)r->extra;
    struct slice value = reply_slice(reply);
    if (err)
        kept->err = err;
    if (!kept->err) {
        buf_put(&kept->bytes, value.data, value.len);
        kept->states[part->index].len = value.len;
    }
    free(part);
    if (--kept->left == 0)
        states_finish(r);
}

void live_states(struct live *live, uint32_t tenant, uint64_t batch, const uint32_t *blocks, size_t count,
                 live_states_fn *done, void *arg)
{
    struct request *r = request_new(live, arg, sizeof(struct states_kept));
    struct states_kept *kept = (struct states_kept *)r->extra;
    r->fn.states = done;
    r->count = count;
    kept->left = count;
    kept->states = calloc(count ? count : 1, sizeof *kept->states);
    if (!kept->states || count == 0)
        abort(); /* a batch has blocks */
    for (size_t i = 0; i < count; i++) {
        struct args a = {0};
        struct states_part *part = malloc(sizeof *part);
        if (!part)
            abort();
        *part = (struct states_part){r, i};
        args_raw(&a, "GET", 3);
        args_state_key(&a, (struct live_place){tenant, blocks[i], batch});
        redis_command(live->moves, a.n, a.v, reply_states, part);
    }
}
