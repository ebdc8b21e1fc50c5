#include "dispatcher/mailboxes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct full_block {
    uint32_t tenant, block;
    int64_t told_us;
    struct bitmap slots;
};

struct mailboxes {
    struct full_block *v; /* by tenant and block */
    size_t count, room;
};

struct mailboxes *mailboxes_new(void)
{
    return calloc(1, sizeof(struct mailboxes));
}

void mailboxes_free(struct mailboxes **m)
{
    if (*m)
        free((*m)->v);
    free(*m);
    *m = NULL;
}

/* The first one that does not come before it. */
static size_t place(const struct mailboxes *m, uint32_t tenant, uint32_t block)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct full_block *b = &m->v[mid];
        if (b->tenant < tenant || (b->tenant == tenant && b->block < block))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void take_out(struct mailboxes *m, size_t at)
{
    memmove(&m->v[at], &m->v[at + 1], (--m->count - at) * sizeof *m->v);
}

/* What nobody has said again: nobody leads, or the leader says so no more. */
static void forget_old(struct mailboxes *m, uint32_t tenant, int64_t now_us)
{
    for (size_t i = place(m, tenant, 0); i < m->count && m->v[i].tenant == tenant;)
        if (now_us - m->v[i].told_us > MAILBOXES_FORGET_US)
            take_out(m, i);
        else
            i++;
}

static bool make_room(struct mailboxes *m)
{
    size_t room = m->room ? m->room * 2 : 16;
    if (m->count < m->room)
        return true;
    struct full_block *v = realloc(m->v, room * sizeof *v);
    if (!v)
        return false;
    m->v = v;
    m->room = room;
    return true;
}

void mailboxes_told(struct mailboxes *m, uint32_t tenant, uint32_t block, const struct bitmap *full, int64_t now_us)
{
    size_t at = place(m, tenant, block);
    bool there = at < m->count && m->v[at].tenant == tenant && m->v[at].block == block;
    if (bitmap_next(full, 0) == BLOCK_SLOTS) {
        if (there)
            take_out(m, at);
        return;
    }
    if (!there && !make_room(m))
        return; /* without memory: told again */
    if (!there)
        memmove(&m->v[at + 1], &m->v[at], (m->count++ - at) * sizeof *m->v);
    m->v[at] = (struct full_block){tenant, block, now_us, *full};
}

bool mailboxes_any(struct mailboxes *m, uint32_t tenant, int64_t now_us)
{
    if (!m->count)
        return false;
    forget_old(m, tenant, now_us);
    size_t at = place(m, tenant, 0);
    return at < m->count && m->v[at].tenant == tenant;
}

void mailboxes_find(struct mailboxes *m, uint32_t tenant, const struct target_set *set, int64_t now_us,
                    struct target_set *full)
{
    if (!mailboxes_any(m, tenant, now_us))
        return;
    for (size_t i = place(m, tenant, 0); i < m->count && m->v[i].tenant == tenant; i++) {
        const struct target_block *t = target_set_find(set, m->v[i].block);
        if (!t)
            continue;
        struct bitmap both = t->slots;
        bitmap_and(&both, &m->v[i].slots);
        if (bitmap_next(&both, 0) < BLOCK_SLOTS)
            target_set_add(full, t->block, &both);
    }
}

/* --- on muster:events -------------------------------------------------------------------------------------------- */

void mailboxes_write(char out[MAILBOXES_TEXT], uint32_t tenant, uint32_t block, const struct bitmap *full)
{
    size_t at = (size_t)snprintf(out, MAILBOXES_TEXT, "full %" PRIu32 " %" PRIu32 " ", tenant, block);
    for (size_t i = 0; i < sizeof full->bytes; i++)
        at += (size_t)snprintf(out + at, MAILBOXES_TEXT - at, "%02x", full->bytes[i]);
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool mailboxes_read(struct slice text, uint32_t *tenant, uint32_t *block, struct bitmap *full)
{
    char copy[MAILBOXES_TEXT];
    int at = 0;
    if (text.len >= sizeof copy)
        return false;
    memcpy(copy, text.data, text.len);
    copy[text.len] = 0;
    if (sscanf(copy, "full %" SCNu32 " %" SCNu32 " %n", tenant, block, &at) != 2 || !at ||
        strlen(copy + at) != 2 * sizeof full->bytes)
        return false;
    for (size_t i = 0; i < sizeof full->bytes; i++) {
        int high = hex(copy[at + 2 * (int)i]), low = hex(copy[at + 2 * (int)i + 1]);
        if (high < 0 || low < 0)
            return false;
        full->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
