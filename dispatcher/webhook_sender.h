/* The leader as sender to web hooks.
 * Owns: struct webhook_sender, what is on its way. May call: lib/store/db_webhook, lib/base/http_client. Loop rule: as
 * leader_reign.h.
 *
 * What is to be sent, and again, is decided in PostgreSQL (webhook_take); here is only what is on its way. What became
 * of an attempt is written before the next of its batch is sent. A leader that ends forgets what is on its way: its
 * successor sends it once more, under the same id. */
#ifndef MUSTER_DISPATCHER_WEBHOOK_SENDER_H
#define MUSTER_DISPATCHER_WEBHOOK_SENDER_H

#include "dispatcher/leader_reign.h"

struct webhook_sender;

/* Returns owned, or NULL without memory. */
struct webhook_sender *webhook_sender_new(struct reign *r);
void webhook_sender_free(struct webhook_sender **sender);
/* Looks what is to be sent, if it is time. */
void webhook_sender_tick(struct reign *r);

#endif
