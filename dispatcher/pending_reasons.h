/* Why a command has not come to its end: from what is known to what is told.
 * Owns: the rules and the words. May call: lib/store, generated messages, dispatcher/rollout, present. Loop rule: none,
 * pure. Memory comes from the arena, whose `failed` says when there was none. */
#ifndef MUSTER_DISPATCHER_PENDING_REASONS_H
#define MUSTER_DISPATCHER_PENDING_REASONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/arena.h"
#include "lib/store/db_gate.h"
#include "lib/store/db_pending.h"
#include "lib/store/live.h"
#include "muster/v1/command_service.pb-c.h"

/* What is known of one device, and of everything. */
struct pending_facts {
    int32_t tenant;
    uint32_t seq;
    int64_t now_ms;
    struct db_pending_device device;
    struct db_gate all_gate, tenant_gate; /* closed: with their reasons */
    bool redis;                           /* Redis was asked; else the rest is not known */
    uint16_t worker;                      /* that it is connected to; 0: none */
    bool worker_there;                    /* it has its lease */
    int64_t inbox;                        /* entries in its inboxes */
    const struct live_pending *open;      /* what is open for the device, in order of delivery */
    size_t open_count;
};

/* One of its commands. */
struct pending_command {
    int64_t batch;
    uint8_t state; /* byte; not terminal */
    int64_t at_ms; /* when it came to a state that is recorded, its last: HELD after an outcome, QUEUED again, SENT; 0:
                      never */
    /* the answer */
    Muster__V1__Pending **list;
    size_t count;
    int64_t expires_ms; /* when it ends at the latest */
};

#define PENDING_MAX 20 /* reasons of one command */

/* Fills in the answer; `batch` is the row of its batch. */
void pending_reasons(struct arena *a, const struct pending_facts *facts, const struct db_pending_batch *batch,
                     struct pending_command *command);

#endif
