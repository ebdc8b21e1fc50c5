/* What waits for something scarce, by tenant: whoever has most of it there is the first to be turned away, and all are
 * served in turn. Owns: struct shares, tenants in it. May call: lib/base/list, err. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_SHARES_H
#define MUSTER_DISPATCHER_SHARES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/list.h"

#define SHARES_BUCKETS 256

struct shares_limits {
    /* Of all together; beyond, only a tenant with less than an equal share may add. So there may be twice as much. */
    size_t entries, cost;
    /* A tenant with an equal share or more, and with `spare` entries, gets no more while its first one has waited for
     * longer: what is added would only wait longer. */
    int64_t patience_us;
    size_t spare;
};

struct share_tenant {
    struct list link;   /* in shares.turn */
    struct list bucket; /* of shares.buckets */
    struct list entries;
    uint32_t number;
    size_t count, cost;
    size_t taken; /* entries that may be put back: it stays for them */
};

/* Embedded in what waits. */
struct share {
    struct list link; /* of its tenant's entries, oldest first */
    struct share_tenant *tenant;
    size_t cost;
    int64_t since_us;
};

struct shares {
    struct shares_limits limits;
    struct list buckets[SHARES_BUCKETS];
    struct list turn; /* tenants with entries; the next to be served first */
    size_t tenants, count, cost;
};

void shares_init(struct shares *s, const struct shares_limits *limits);
/* Whether the tenant may add an entry that costs so much. */
bool shares_may(const struct shares *s, uint32_t tenant, size_t cost, int64_t now_us);
/* Adds at the tenant's end. False without memory. */
MUST_CHECK bool shares_add(struct shares *s, struct share *e, uint32_t tenant, size_t cost, int64_t now_us);
/* Takes it out to be served: it counts no more, but may be put back, at its tenant's front and with the time it was
 * added at first, until it is let go. */
void shares_take(struct shares *s, struct share *e);
void shares_put_back(struct shares *s, struct share *e);
void shares_let_go(struct share *e);
/* Takes it out for good. */
void shares_remove(struct shares *s, struct share *e);
/* The tenant's turn is over. */
void shares_turn(struct shares *s, struct share_tenant *t);

#endif
