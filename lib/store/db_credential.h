/* What a worker needs to verify devices: signing keys and revocations.
 * Owns: the statements. May call: lib/store/pg. Loop rule: non-blocking. */
#ifndef MUSTER_STORE_DB_CREDENTIAL_H
#define MUSTER_STORE_DB_CREDENTIAL_H

#include "lib/store/pg.h"
#include "proto/credential.h"

struct db_signing_key {
    uint32_t id;
    uint8_t secret[CREDENTIAL_SECRET_BYTES];
};

/* Reads revocations with an id greater than `after`, and all signing keys, the newest first. `revoked` comes for each
 * revocation, then `done` once; both only from the loop. */
void db_credential_read(struct pg *pg, int64_t after,
                        void (*revoked)(void *arg, int64_t id, uint32_t tenant, uint32_t seq, int64_t issued_before_ms),
                        void (*done)(void *arg, enum err err, const struct db_signing_key *keys, size_t count),
                        void *arg);

#endif
