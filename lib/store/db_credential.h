/* What a worker must know to verify device tokens: signing keys and revocations.
 * Owns: statements that read signing_key and revocation. May call: lib/store/pg. Loop rule: as pg.h. */
#ifndef MUSTER_STORE_DB_CREDENTIAL_H
#define MUSTER_STORE_DB_CREDENTIAL_H

#include <stdint.h>

#include "lib/store/pg.h"

struct db_signing_key {
    uint32_t id;
    struct slice secret; /* borrowed from the result */
};
/* Rows of all signing keys. */
void db_credential_keys(struct pg_txn *txn);
void db_signing_key_read(const struct pg_result *r, int row, struct db_signing_key *out);

struct db_revocation {
    int64_t id; /* grows with each change */
    uint32_t tenant, seq;
    int64_t issued_before_ms;
};
/* Rows of revocations with an id above `after`, in order of id, at most `limit`. An id may become visible after a
 * larger one (transactions commit in any order), so read some way back. */
void db_credential_revocations(struct pg_txn *txn, int64_t after, int32_t limit);
void db_revocation_read(const struct pg_result *r, int row, struct db_revocation *out);

#endif
