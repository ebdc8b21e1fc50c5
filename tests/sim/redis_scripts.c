/* One function per file of schema/redis: what it does, told plainly, without what the scripts do to be fast. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/block.h"
#include "lib/store/state.h"
#include "tests/sim/mutation.h"
#include "tests/sim/redis_model.h"

#define FEW 24 /* of prelude.lua: up to so many events record answers with single bytes */

model_fn model_apply, model_attach, model_filled, model_lead, model_limited, model_look, model_close, model_detach,
    model_hand_back, model_reap, model_record, model_route, model_waiting, model_worker_dead, model_worker_reclaim,
    model_worker_release, model_worker_renew;

/* As apply() of prelude.lua. */
static uint8_t after_event(uint8_t old, unsigned event, unsigned attempts)
{
    return state_apply(old, (enum command_event)event, attempts);
}

/* A state string, copied to be changed. */
struct states {
    uint8_t bytes[STATE_STRING_HEADER + BLOCK_SLOTS];
    size_t len;
};

static bool load(struct redis_model *m, struct slice key, struct states *s)
{
    const struct value *v = model_find(m, key);
    if (!v || v->len > sizeof s->bytes)
        return false;
    memcpy(s->bytes, v->text, v->len);
    s->len = v->len;
    return true;
}

static void store(struct redis_model *m, struct slice key, const struct states *s)
{
    struct slice now = model_text(model_find(m, key));
    if (now.len != s->len || memcmp(now.data, s->bytes, s->len) != 0)
        model_set(m, key, (struct slice){s->bytes, s->len});
}

/* The slot's byte, or NULL when it is outside. */
static uint8_t *byte_of(struct states *s, unsigned slot)
{
    unsigned first = load_u16le(s->bytes + 2);
    size_t at = STATE_STRING_HEADER + (size_t)slot - first;
    return slot >= first && at < s->len ? &s->bytes[at] : NULL;
}

static unsigned presence_at(struct slice presence, unsigned slot)
{
    return presence.len >= 2 * (slot + 1) ? load_u16le(presence.data + 2 * slot) : 0;
}

static void put_presence(struct redis_model *m, struct slice key, const uint16_t *slots, size_t n, unsigned worker)
{
    uint8_t all[2 * BLOCK_SLOTS] = {0};
    struct slice now = model_text(model_find(m, key));
    if (now.len)
        memcpy(all, now.data, now.len < sizeof all ? now.len : sizeof all);
    for (size_t i = 0; i < n; i++)
        store_u16le(all + 2 * slots[i], (uint16_t)worker);
    model_set(m, key, (struct slice){all, sizeof all});
}

static size_t unpack(struct slice packed, uint16_t slots[BLOCK_SLOTS])
{
    for (size_t i = 0; i < packed.len / 2; i++)
        slots[i] = load_u16le(packed.data + 2 * i);
    return packed.len / 2;
}

/* Key of the state string that a member of `open` stands for. */
struct state_key {
    uint8_t text[96];
    size_t len;
};
static struct slice key_of(struct state_key *k, struct slice prefix, const struct member *member)
{
    k->len = prefix.len + member->len - 4;
    memcpy(k->text, prefix.data, prefix.len);
    memcpy(k->text + prefix.len, member->data + 4, member->len - 4);
    return (struct slice){k->text, k->len};
}

static uint8_t lose(uint8_t old)
{
    return after_event(old, EVENT_LOSE, 0);
}

/* What was in the hands of a worker that says nothing about it any more: it may have been sent. */
static uint8_t forsake(uint8_t old)
{
    return state_of(old) == STATE_ROUTED ? after_event(old, EVENT_SEND, 1) : old;
}

/* The slots' bytes in every open batch. */
static void change_open(struct redis_model *m, struct slice open, struct slice prefix, const uint16_t *slots, size_t n,
                        uint8_t (*change)(uint8_t old))
{
    const struct value *v = model_find(m, open);
    for (size_t k = 0; v && k < v->count; k++) {
        struct state_key name;
        struct states s;
        struct slice key = key_of(&name, prefix, &v->members[k]);
        if (!load(m, key, &s))
            continue;
        for (size_t i = 0; i < n; i++) {
            uint8_t *byte = byte_of(&s, slots[i]);
            if (byte)
                *byte = change(*byte);
        }
        store(m, key, &s);
    }
}

redisReply *model_apply(struct redis_model *m, const struct slice *keys, const struct slice *args, int n)
{
    unsigned event = (unsigned)slice_number(args[0]);
    struct states s;
    uint16_t slots[BLOCK_SLOTS];
    if (!load(m, keys[0], &s))
        return reply_nil();
    if (n > 1) {
        size_t count = unpack(args[1], slots);
        for (size_t i = 0; i < count; i++) {
            uint8_t *byte = byte_of(&s, slots[i]);
            if (byte)
                *byte = after_event(*byte, event, 0);
        }
    } else {
        size_t end = s.len - (m->mutation == MUTATION_APPLY_SKIPS);
        for (size_t at = STATE_STRING_HEADER; at < end; at++)
            s.bytes[at] = after_event(s.bytes[at], event, 0);
    }
    store(m, keys[0], &s);
    return reply_text((struct slice){s.bytes, s.len});
}

struct pending {
    bool elsewhere; /* another worker has the device */
    uint8_t *bytes; /* 9 each: batch, state byte */
    size_t count;
};

/* One open batch is shown to the slots that are not full. */
static void attach_batch(struct redis_model *m, struct slice prefix, const struct member *member, const uint16_t *slots,
                         size_t n, size_t most, struct pending *pending)
{
    struct state_key name;
    struct states s;
    struct slice key = key_of(&name, prefix, member);
    if (!load(m, key, &s))
        return;
    for (size_t i = 0; i < n; i++) {
        uint8_t *byte = byte_of(&s, slots[i]);
        enum command_state state = byte ? state_of(*byte) : STATE_NONE;
        if (m->mutation == MUTATION_ATTACH_GIVES_HELD && state == STATE_HELD && state_attempts(*byte))
            state = STATE_QUEUED, *byte = state_byte(state, state_attempts(*byte));
        if (pending[i].count == most || state < STATE_QUEUED || state_is_terminal(state))
            continue;
        if (m->mutation == MUTATION_ATTACH_FORGETS && state != STATE_QUEUED)
            continue;
        uint8_t *out = pending[i].bytes + 9 * pending[i].count++;
        store_u64le(out, slice_number((struct slice){member->data + 4, member->len - 4}));
        out[8] = *byte;
        *byte = after_event(pending[i].elsewhere ? forsake(*byte) : *byte, EVENT_ROUTE, 0);
    }
    store(m, key, &s);
}

redisReply *model_attach(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    uint16_t slots[BLOCK_SLOTS];
    size_t n = unpack(args[2], slots), most = slice_number(args[3]), given = 0;
    uint8_t previous[2 * BLOCK_SLOTS];
    struct slice presence = model_text(model_find(m, keys[0]));
    (void)argc;
    for (size_t i = 0; i < n; i++)
        store_u16le(previous + 2 * i, (uint16_t)presence_at(presence, slots[i]));
    put_presence(m, keys[0], slots, n, (unsigned)slice_number(args[0]));
    const struct value *open = model_find(m, keys[1]);
    size_t batches = open ? open->count : 0;
    if (most > batches)
        most = batches;
    struct pending *pending = calloc(n + 1, sizeof *pending);
    uint8_t *room = malloc(9 * n * most + 1);
    if (!pending || !room)
        abort();
    for (size_t i = 0; i < n; i++) {
        unsigned before = load_u16le(previous + 2 * i);
        pending[i].bytes = room + 9 * i * most;
        pending[i].elsewhere = before && before != slice_number(args[0]);
    }
    for (size_t k = 0; most && k < batches; k++) {
        size_t at = m->mutation == MUTATION_ATTACH_BACKWARDS ? batches - 1 - k : k;
        attach_batch(m, args[1], &open->members[at], slots, n, most, pending);
    }
    for (size_t i = 0; i < n; i++)
        given += pending[i].count > 0;
    redisReply *r = reply_array(1 + 2 * given);
    r->element[0] = reply_text((struct slice){previous, 2 * n});
    for (size_t i = 0, k = 1; i < n; i++) {
        if (!pending[i].count)
            continue;
        r->element[k++] = reply_number((int64_t)i);
        r->element[k++] = reply_text((struct slice){pending[i].bytes, 9 * pending[i].count});
    }
    free(pending);
    free(room);
    return r;
}

redisReply *model_close(struct redis_model *m, const struct slice *keys, const struct slice *args, int n)
{
    struct value *open = model_find(m, keys[0]);
    for (size_t i = 0; open && i < open->count;) {
        bool of_batch = false;
        for (int k = 0; k < n; k++)
            of_batch = of_batch || open->members[i].score == slice_number(args[k]);
        if (of_batch)
            member_remove(open, i);
        else
            i++;
    }
    model_drop_empty(m, keys[0]);
    if (m->mutation == MUTATION_CLOSE_KEEPS)
        return reply_number(0);
    bool there = model_find(m, keys[1]) != NULL;
    bool values = model_find(m, keys[2]) != NULL;
    model_delete(m, keys[1]);
    model_delete(m, keys[2]);
    return reply_number(there + values);
}

redisReply *model_detach(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    uint16_t slots[BLOCK_SLOTS], gone[BLOCK_SLOTS];
    unsigned worker = (unsigned)slice_number(args[0]);
    size_t n = unpack(args[2], slots), count = 0;
    struct slice presence = model_text(model_find(m, keys[0]));
    (void)argc;
    for (size_t i = 0; i < n; i++)
        if (presence.len && (presence_at(presence, slots[i]) == worker || m->mutation == MUTATION_DETACH_ANYBODY))
            gone[count++] = slots[i];
    if (count) {
        put_presence(m, keys[0], gone, count, 0);
        change_open(m, keys[1], args[1], gone, count, lose);
    }
    return reply_number((int64_t)count);
}

redisReply *model_hand_back(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    uint16_t slots[BLOCK_SLOTS];
    unsigned worker = (unsigned)slice_number(args[0]);
    size_t n = unpack(args[1], slots);
    int64_t count = 0;
    struct states s;
    struct slice presence = model_text(model_find(m, keys[0]));
    (void)argc;
    if (!load(m, keys[1], &s))
        return reply_number(0);
    for (size_t i = 0; i < n; i++) {
        unsigned there = presence_at(presence, slots[i]);
        uint8_t *byte = byte_of(&s, slots[i]);
        if (!byte || (there != 0 && there != worker))
            continue;
        uint8_t now = after_event(*byte, EVENT_LOSE, 0);
        count += now != *byte;
        *byte = now;
    }
    store(m, keys[1], &s);
    return reply_number(count);
}

redisReply *model_reap(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    uint16_t gone[BLOCK_SLOTS];
    unsigned worker = (unsigned)slice_number(args[0]);
    size_t count = 0;
    struct slice presence = model_text(model_find(m, keys[0]));
    (void)argc;
    for (unsigned slot = 0; slot < presence.len / 2; slot++)
        if (presence_at(presence, slot) == worker)
            gone[count++] = (uint16_t)slot;
    if (count) {
        put_presence(m, keys[0], gone, count, 0);
        if (m->mutation != MUTATION_REAP_KEEPS)
            change_open(m, keys[1], args[1], gone, count, forsake);
    }
    return reply_number((int64_t)count);
}

static uint8_t recorded(const struct redis_model *m, uint8_t old, unsigned event, unsigned attempts)
{
    bool ends = m->mutation == MUTATION_GIVES_UP && event == EVENT_RETRY;
    uint8_t now = after_event(old, ends ? EVENT_FAIL : event, attempts);
    if (m->mutation == MUTATION_COUNTS_NOT_NOW && event == EVENT_NOT_NOW && state_of(now) == STATE_QUEUED)
        now = state_byte(STATE_QUEUED, attempts);
    return now;
}

redisReply *model_record(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    struct states before, now;
    size_t n = args[0].len / 4;
    uint8_t bytes[FEW];
    (void)argc;
    if (!load(m, keys[0], &before))
        return reply_text((struct slice){(const uint8_t *)"", 0});
    now = before;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *event = args[0].data + 4 * i;
        uint8_t *byte = byte_of(&now, load_u16le(event));
        if (i < FEW)
            bytes[i] = byte ? *byte_of(&before, load_u16le(event)) : 0;
        if (byte && m->mutation == MUTATION_RECORD_OVERWRITES && state_is_terminal(state_of(*byte)))
            *byte = state_byte(STATE_SENT, state_attempts(*byte));
        if (byte)
            *byte = recorded(m, *byte, event[2], event[3]);
    }
    store(m, keys[0], &now);
    return n > FEW ? reply_text((struct slice){before.bytes, before.len}) : reply_text((struct slice){bytes, n});
}

/* What stood there in another span, laid out like the newcomer; out of `open` under its old member. */
static void lay_out(struct redis_model *m, struct slice open, struct slice member, struct states *old,
                    const struct states *fresh)
{
    struct states moved = *fresh;
    uint8_t name[64];
    for (size_t at = STATE_STRING_HEADER; at < fresh->len; at++) {
        const uint8_t *byte = byte_of(old, (unsigned)(load_u16le(fresh->bytes + 2) + at - STATE_STRING_HEADER));
        moved.bytes[at] = byte ? *byte : 0;
    }
    memcpy(name, old->bytes + 2, 2);
    store_u16le(name + 2, (uint16_t)(old->len - STATE_STRING_HEADER));
    memcpy(name + 4, member.data + 4, member.len - 4);
    struct value *v = model_find(m, open);
    for (size_t i = 0; i < v->count; i++)
        if (v->members[i].len == member.len && memcmp(v->members[i].data, name, member.len) == 0)
            member_remove(v, i--);
    *old = moved;
}

static redisReply *routed(struct slice presence, const struct states *after)
{
    redisReply *r = reply_array(2);
    r->element[0] = reply_text(presence);
    r->element[1] = reply_text((struct slice){after->bytes + STATE_STRING_HEADER, after->len - STATE_STRING_HEADER});
    return r;
}

/* What is held the newcomer alone decides. */
static uint8_t sent(uint8_t known, unsigned attempts)
{
    if (state_of(known) == STATE_HELD)
        known = state_byte(STATE_SENT, state_attempts(known));
    return after_event(known, EVENT_SEND, attempts);
}

redisReply *model_route(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    struct slice member = args[0], belief = args[3], believed = args[4], presence = model_text(model_find(m, keys[0]));
    struct states old, all = {.len = args[5].len};
    size_t first = slice_number(args[2]), count = all.len - STATE_STRING_HEADER;
    (void)argc;
    memcpy(all.bytes, args[5].data, all.len);
    if (presence.len)
        presence = (struct slice){presence.data + 2 * first, 2 * count};
    bool there = load(m, keys[2], &old) && m->mutation != MUTATION_ROUTE_FORGETS;
    if (!there && believed.len == 1 && *believed.data == '-')
        return reply_text((struct slice){(const uint8_t *)"", 0});
    sorted_add(model_make(m, keys[1], VALUE_SORTED), slice_number(args[1]), member);
    if (!there && believed.len && belief.len == presence.len && memcmp(belief.data, presence.data, belief.len) == 0) {
        model_set(m, keys[2], believed);
        return reply_number(1);
    }
    if (there && (old.len != all.len || memcmp(old.bytes, all.bytes, STATE_STRING_HEADER) != 0))
        lay_out(m, keys[1], member, &old, &all);
    for (size_t i = 0; i < count; i++) {
        uint8_t *byte = &all.bytes[STATE_STRING_HEADER + i], known = there ? old.bytes[STATE_STRING_HEADER + i] : 0;
        /* What stands here knows more, unless the newcomer says that it is over, or was sent; what is held the newcomer
         * alone decides, if it has heard of all its deliveries. */
        bool open = state_of(*byte) == STATE_QUEUED || state_of(*byte) == STATE_SENT;
        if (state_of(known) == STATE_HELD && open && state_waits(known, *byte))
            *byte = known;
        else if (state_of(known) == STATE_HELD && state_of(*byte) == STATE_QUEUED)
            *byte = after_event(known, EVENT_RELEASE, 0);
        else if (state_of(known) == STATE_QUEUED && state_of(*byte) == STATE_HELD)
            *byte = after_event(known, EVENT_HOLD, 0);
        else if (state_of(known) && (!state_is_terminal(state_of(*byte)) || state_is_terminal(state_of(known))))
            *byte = state_of(*byte) == STATE_SENT ? sent(known, state_attempts(*byte)) : known;
        else if (state_of(known))
            *byte = state_merge(known, *byte);
        if (state_of(*byte) == STATE_QUEUED && presence_at(presence, (unsigned)i))
            *byte = after_event(*byte, EVENT_ROUTE, 0);
    }
    model_set(m, keys[2], (struct slice){all.bytes, all.len});
    return routed(presence, &all);
}

redisReply *model_waiting(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    struct slice presence = model_text(model_find(m, keys[0]));
    const struct value *open = model_find(m, keys[1]);
    unsigned slot = (unsigned)slice_number(args[0]);
    size_t n = open ? open->count : 0;
    struct buf packed = {0};
    (void)argc;
    for (size_t i = 0; i < n && i < (size_t)slice_number(args[2]); i++) {
        const struct member *member = &open->members[i];
        struct state_key name;
        struct states s;
        uint8_t *byte = load(m, key_of(&name, args[1], member), &s) ? byte_of(&s, slot) : NULL;
        if (!byte || state_of(*byte) == STATE_NONE || state_of(*byte) >= STATE_SUCCEEDED)
            continue;
        buf_put_u64le(&packed, (uint64_t)slice_number((struct slice){member->data + 4, member->len - 4}));
        buf_put_u8(&packed, *byte);
    }
    redisReply *r = reply_array(2);
    r->element[0] = reply_text(presence.len ? (struct slice){presence.data + 2 * slot, 2} : presence);
    r->element[1] = reply_text(buf_slice(&packed));
    buf_free(&packed);
    return r;
}

redisReply *model_look(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    struct slice presence = model_text(model_find(m, keys[0]));
    const struct value *open = model_find(m, keys[1]);
    struct states s = {.len = 0};
    int64_t listed = 0;
    for (size_t i = 0; open && i < open->count; i++)
        for (int k = 0; k < argc; k++)
            listed += open->members[i].score == slice_number(args[k]);
    if (load(m, keys[2], &s) && s.len > STATE_STRING_HEADER && presence.len)
        presence = (struct slice){presence.data + 2 * load_u16le(s.bytes + 2), 2 * (s.len - STATE_STRING_HEADER)};
    else
        presence.len = 0;
    redisReply *r = reply_array(3);
    r->element[0] = reply_text((struct slice){s.bytes, s.len});
    r->element[1] = reply_number(listed);
    r->element[2] = reply_text(presence);
    return r;
}

/* --- the whole ------------------------------------------------------------------------------------------------------
 */

redisReply *model_lead(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    (void)argc;
    if (slice_number(model_text(model_find(m, keys[0]))) > slice_number(args[0]))
        return reply_number(0);
    model_set(m, keys[0], args[0]);
    return reply_number(1);
}

redisReply *model_filled(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    struct slice now = model_text(model_find(m, keys[0]));
    (void)argc;
    if (now.len != args[0].len || memcmp(now.data, args[0].data, now.len) != 0 || args[1].len == 0)
        return reply_number(0);
    model_set(m, keys[0], args[1]);
    return reply_number(1);
}

redisReply *model_limited(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    struct slice command[8] = {args[1], keys[0]}, expire[] = {{(const uint8_t *)"EXPIRE", 6}, keys[0], args[0]};
    for (int i = 2; i < argc; i++)
        command[i] = args[i];
    redisReply *given = redis_model_command(m, argc, command);
    freeReplyObject(redis_model_command(m, 3, expire));
    return given;
}

/* --- leases ---------------------------------------------------------------------------------------------------------
 */

static bool same(const struct value *v, struct slice text)
{
    return v && v->len == text.len && memcmp(v->text, text.data, text.len) == 0;
}

redisReply *model_worker_dead(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    const struct value *v = model_find(m, keys[0]);
    (void)argc;
    if (!v && m->mutation == MUTATION_DEAD_NOT_FENCED)
        return reply_number(1);
    if (!v)
        model_set(m, keys[0], args[0]);
    return reply_number(!v || same(v, args[0]));
}

redisReply *model_worker_reclaim(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    const struct value *v = model_find(m, keys[0]);
    (void)argc;
    if (v && !same(v, args[0]))
        return reply_number(-1);
    model_set(m, keys[0], args[0]);
    model_find(m, keys[0])->expires_ms = m->now_ms + (int64_t)slice_number(args[1]);
    return reply_number(1);
}

redisReply *model_worker_release(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    (void)argc;
    if (!same(model_find(m, keys[0]), args[0]))
        return reply_number(0);
    model_delete(m, keys[0]);
    return reply_number(1);
}

redisReply *model_worker_renew(struct redis_model *m, const struct slice *keys, const struct slice *args, int argc)
{
    struct value *v = model_find(m, keys[0]);
    (void)argc;
    if (!same(v, args[0]))
        return reply_number(v ? -1 : 0);
    v->expires_ms = m->now_ms + (int64_t)slice_number(args[1]);
    return reply_number(1);
}
