/* Whether a device is who it says, without a look-up: signing keys and revocations in memory, read from PostgreSQL at
 * the start, every few seconds after that, and when a token names a key not known yet. Owns: struct credentials. May
 * call: lib/store/db_credential, proto/credential. Loop rule: non-blocking. */
#ifndef MUSTER_WORKERS_CREDENTIALS_H
#define MUSTER_WORKERS_CREDENTIALS_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/credential.h"

struct credentials;
struct pg;

enum credential_check {
    CREDENTIAL_GOOD,
    CREDENTIAL_MALFORMED, /* no token */
    CREDENTIAL_UNKNOWN,   /* wrong signature, key or device id */
    CREDENTIAL_EXPIRED,
    CREDENTIAL_REVOKED,
    CREDENTIAL_NOT_READY, /* keys are not read yet: try again */
};

/* Returns owned, or NULL without memory. Begins to read at once. */
struct credentials *credentials_new(struct ev_loop *loop, struct pg *pg);
void credentials_free(struct credentials **c);
/* Whether keys and revocations have been read once. */
bool credentials_ready(const struct credentials *c);
/* Fills `out` when GOOD. */
enum credential_check credentials_check(struct credentials *c, struct slice device_id, struct slice token,
                                        int64_t now_ms, struct credential *out);
/* "expired"; for logs. */
const char *credential_check_name(enum credential_check check);
/* Tokens of the device issued before `issued_before_ms` hold no longer. */
void credentials_revoke(struct credentials *c, uint32_t tenant, uint32_t seq, int64_t issued_before_ms);

#endif
