/* The keys of session tickets that all workers share.
 * Owns: the statements. May call: lib/store/pg, lib/base/tls_ticket. Loop rule: non-blocking. */
#ifndef MUSTER_STORE_DB_TICKET_KEY_H
#define MUSTER_STORE_DB_TICKET_KEY_H

#include "lib/base/tls_ticket.h"
#include "lib/store/pg.h"

struct db_ticket_key {
    struct tls_ticket_key key;
    int64_t age_ms; /* by PostgreSQL's clock */
};

/* `keys`, the newest first, are borrowed and valid in the callback; never none when `err` is ERR_OK. */
typedef void db_ticket_keys_fn(void *arg, enum err err, const struct db_ticket_key *keys, size_t count);

/* Reads the keys younger than `keep_ms`; where none is younger than `rotate_ms` a random one is added first. */
void db_ticket_keys(struct pg *pg, int64_t rotate_ms, int64_t keep_ms, db_ticket_keys_fn *done, void *arg);

#endif
