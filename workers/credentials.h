/* Device tokens verified from memory: signing keys and revocations, kept up to date from PostgreSQL in the background.
 * Owns: struct credentials. May call: lib/store/db_credential, proto/credential. Loop rule: non-blocking. */
#ifndef MUSTER_WORKERS_CREDENTIALS_H
#define MUSTER_WORKERS_CREDENTIALS_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "proto/credential.h"

struct credentials;
struct pg;

enum credential_answer {
    CREDENTIAL_GOOD,
    CREDENTIAL_BAD,     /* no token, or not signed by us for this device */
    CREDENTIAL_EXPIRED, /* was good once */
    CREDENTIAL_REVOKED,
    CREDENTIAL_LATER, /* its key is not known yet and being looked for: ask again after on_change */
};

/* Begins to read keys and revocations at once. `on_change` is called after each reading, and after one that failed.
 * Returns owned, or NULL without memory. */
struct credentials *credentials_new(struct ev_loop *loop, struct pg *pg, void (*on_change)(void *arg), void *arg);
void credentials_free(struct credentials **c);
/* Fills `out` when GOOD. LATER begins a look-up, at most one a second: an attacker's key ids cost no more. */
enum credential_answer credentials_verify(struct credentials *c, struct slice token, struct slice device_id,
                                          int64_t now_ms, struct credential *out);
/* Refuses this device's tokens issued before a time, from now on. */
void credentials_revoke(struct credentials *c, uint32_t tenant, uint32_t seq, int64_t issued_before_ms);
/* Tokens of the device issued at `issued_ms` are revoked. */
bool credentials_revoked(const struct credentials *c, uint32_t tenant, uint32_t seq, int64_t issued_ms);
/* Whether keys and all revocations were read once: before, nobody is let in. */
bool credentials_ready(const struct credentials *c);

#endif
