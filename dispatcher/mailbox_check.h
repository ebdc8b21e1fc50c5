/* A request's step: which of the devices that it addresses have as many open commands as they may (mailboxes.h).
 * Owns: struct mailbox_check. May call: dispatcher/mailboxes, lib/store/db_device. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_MAILBOX_CHECK_H
#define MUSTER_DISPATCHER_MAILBOX_CHECK_H

#include "dispatcher/mailboxes.h"
#include "dispatcher/target_set.h"
#include "lib/base/arena.h"
#include "lib/store/pg.h"
#include "proto/status.h"

#define MAILBOX_NAMED 100 /* of those that are full */

/* Zero-initialise, then set what is asked. */
struct mailbox_check {
    struct mailboxes *mailboxes;
    struct pg *pg;
    struct arena *arena;
    int32_t tenant;
    int64_t limit; /* of a device */
    void (*done)(struct mailbox_check *check);
    /* The answer. */
    struct target_set full;
    uint32_t count;
    const char *ids[MAILBOX_NAMED]; /* the first of them, once named */
    size_t kept;
    struct status st; /* of the store, when it failed */
};

/* Fills `full` and `count`. */
void mailbox_check_find(struct mailbox_check *check, const struct target_set *set);
/* Asks what they are called; then comes `done`, perhaps at once. */
void mailbox_check_name(struct mailbox_check *check);
/* MAILBOX_FULL, once they are named. */
void mailbox_check_refuse(const struct mailbox_check *check, struct status *st);
void mailbox_check_free(struct mailbox_check *check);

#endif
