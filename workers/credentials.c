#include "workers/credentials.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/store/db_credential.h"

#define REFRESH_S    5.0
#define ASK_AGAIN_MS 1000 /* tokens of keys that do not exist must not make work */
#define KEYS_MAX     64
#define ROOM_FIRST   1024

struct revoked {
    uint64_t device; /* tenant << 32 | seq, plus one; 0: free place */
    int64_t issued_before_ms;
};

struct credentials {
    struct ev_loop *loop;
    struct pg *pg;
    struct db_signing_key keys[KEYS_MAX];
    unsigned key_count;
    struct revoked *revoked;
    size_t used, room; /* room is a power of two */
    int64_t read_to;   /* greatest revocation.id read */
    bool reading, ready;
    int64_t asked_ms; /* when an unknown key last made it read again */
    struct ev_timer timer;
};

/* --- revocations -------------------------------------------------------------------------------------------------- */

static struct revoked *find(struct revoked *v, size_t room, uint64_t device)
{
    size_t i = (device * 0x9e3779b97f4a7c15ull >> 20) & (room - 1);
    while (v[i].device && v[i].device != device)
        i = (i + 1) & (room - 1);
    return &v[i];
}

static void grow(struct credentials *c)
{
    size_t room = c->room ? c->room * 2 : ROOM_FIRST;
    struct revoked *grown = calloc(room, sizeof *grown);
    if (!grown) {
        log_error("out_of_memory", "where=credentials");
        abort(); /* a revocation must not be forgotten */
    }
    for (size_t i = 0; i < c->room; i++)
        if (c->revoked[i].device)
            *find(grown, room, c->revoked[i].device) = c->revoked[i];
    free(c->revoked);
    c->revoked = grown;
    c->room = room;
}

void credentials_revoke(struct credentials *c, uint32_t tenant, uint32_t seq, int64_t issued_before_ms)
{
    if ((c->used + 1) * 2 > c->room)
        grow(c);
    uint64_t device = ((uint64_t)tenant << 32 | seq) + 1;
    struct revoked *r = find(c->revoked, c->room, device);
    c->used += r->device == 0;
    r->device = device;
    if (r->issued_before_ms < issued_before_ms)
        r->issued_before_ms = issued_before_ms;
}

static bool is_revoked(const struct credentials *c, const struct credential *token)
{
    if (c->room == 0)
        return false;
    const struct revoked *r = find(c->revoked, c->room, ((uint64_t)token->tenant << 32 | token->seq) + 1);
    return r->device && token->issued_ms < r->issued_before_ms;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void on_revocation(void *arg, int64_t id, uint32_t tenant, uint32_t seq, int64_t issued_before_ms)
{
    struct credentials *c = arg;
    credentials_revoke(c, tenant, seq, issued_before_ms);
    if (id > c->read_to)
        c->read_to = id;
}

static void on_read(void *arg, enum err err, const struct db_signing_key *keys, size_t count)
{
    struct credentials *c = arg;
    c->reading = false;
    if (err)
        return;
    if (count > KEYS_MAX) { /* the newest come first */
        log_warn("signing_keys_many", "count=%zu used=%d", count, KEYS_MAX);
        count = KEYS_MAX;
    }
    memcpy(c->keys, keys, count * sizeof *keys);
    c->key_count = (unsigned)count;
    c->ready = true;
}

static void read_on(struct credentials *c)
{
    if (c->reading)
        return;
    c->reading = true;
    db_credential_read(c->pg, c->read_to, on_revocation, on_read, c);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct credentials *c = timer->data;
    (void)revents;
    ev_timer_set(timer, c->ready ? REFRESH_S : 0.1, 0);
    ev_timer_start(loop, timer);
    read_on(c);
}

struct credentials *credentials_new(struct ev_loop *loop, struct pg *pg)
{
    struct credentials *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->loop = loop;
    c->pg = pg;
    ev_timer_init(&c->timer, on_timer, 0, 0);
    c->timer.data = c;
    ev_timer_start(loop, &c->timer);
    return c;
}

void credentials_free(struct credentials **c)
{
    if (!*c)
        return;
    ev_timer_stop((*c)->loop, &(*c)->timer);
    sodium_memzero((*c)->keys, sizeof(*c)->keys);
    free((*c)->revoked);
    free(*c);
    *c = NULL;
}

bool credentials_ready(const struct credentials *c)
{
    return c->ready;
}

/* --- checking ----------------------------------------------------------------------------------------------------- */

const char *credential_check_name(enum credential_check check)
{
    static const char *const names[] = {"good", "malformed", "unknown", "expired", "revoked", "not_ready"};
    return names[check];
}

enum credential_check credentials_check(struct credentials *c, struct slice device_id, struct slice token,
                                        int64_t now_ms, struct credential *out)
{
    if (!credential_parse(out, token))
        return CREDENTIAL_MALFORMED;
    if (!c->ready)
        return CREDENTIAL_NOT_READY;
    for (unsigned i = 0; i < c->key_count; i++)
        if (c->keys[i].id == out->key_id) {
            if (!credential_verify(token, device_id, c->keys[i].secret))
                return CREDENTIAL_UNKNOWN;
            if (now_ms >= out->expires_ms)
                return CREDENTIAL_EXPIRED;
            return is_revoked(c, out) ? CREDENTIAL_REVOKED : CREDENTIAL_GOOD;
        }
    /* It may be a key made since: whoever comes with it waits until the keys are read, the first one has them read. */
    if (!c->reading && now_ms - c->asked_ms < ASK_AGAIN_MS)
        return CREDENTIAL_UNKNOWN;
    if (!c->reading)
        c->asked_ms = now_ms;
    read_on(c);
    return CREDENTIAL_NOT_READY;
}
