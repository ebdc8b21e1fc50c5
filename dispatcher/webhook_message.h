/* What is sent to a web hook, by the Standard Webhooks specification (standardwebhooks.com): body, id, signature,
 * secret. Owns: nothing. May call: proto/json, libsodium. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_WEBHOOK_MESSAGE_H
#define MUSTER_DISPATCHER_WEBHOOK_MESSAGE_H

#include <stdbool.h>

#include "lib/store/db_webhook.h"

#define WEBHOOK_ID_MAX        64  /* "evt_<web hook>_<event>" */
#define WEBHOOK_SIGNATURE_MAX 160 /* one or two of "v1,<base64>" */
#define WEBHOOK_SECRET_MAX    64  /* "whsec_<base64>" */

/* {"type":"batch.completed","timestamp":"…","data":{…}}: data is muster.v1.Event, with the tenant's name. Returns
 * owned; NULL without memory, or when it is no event. */
char *webhook_body(const struct db_webhook_task *task);
/* The same for each attempt. */
void webhook_id(char out[WEBHOOK_ID_MAX], const struct db_webhook_task *task);
/* HMAC-SHA256 over "<id>.<seconds>.<body>", with the secret and the former one. */
void webhook_signature(char out[WEBHOOK_SIGNATURE_MAX], const struct db_webhook_task *task, const char *id,
                       int64_t seconds, const char *body);
void webhook_secret(char out[WEBHOOK_SECRET_MAX], const uint8_t secret[WEBHOOK_SECRET_BYTES]);

#endif
