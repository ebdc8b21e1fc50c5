/* Devices with as many open commands as they may have, as every dispatcher is told by the leader, which counts them.
 * Owns: struct mailboxes, the form of "full" on muster:events. May call: dispatcher/target_set, lib/store/block. Loop
 * rule: none, pure: time is given.
 *
 * What the leader has not heard of yet it has not counted, and others hear of it a moment after: a device may get a
 * little more than it may have, what is accepted for it within about a quarter of a second, or until there is a leader
 * again. A look here costs nothing while no device of the tenant is full. */
#ifndef MUSTER_DISPATCHER_MAILBOXES_H
#define MUSTER_DISPATCHER_MAILBOXES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/target_set.h"

struct mailboxes;

#define MAILBOXES_TELL_US   5000000  /* what is full is told again so often, */
#define MAILBOXES_FORGET_US 20000000 /* and not believed any more after so long */
#define MAILBOXES_TEXT      320      /* bytes of a text, with the final NUL */

/* Returns owned, or NULL without memory. */
struct mailboxes *mailboxes_new(void);
void mailboxes_free(struct mailboxes **m);
/* These devices of the block, and no others, are full. */
void mailboxes_told(struct mailboxes *m, uint32_t tenant, uint32_t block, const struct bitmap *full, int64_t now_us);
/* "full <tenant> <block> <128 bytes in hexadecimal>"; _read: false for any other text. */
void mailboxes_write(char out[MAILBOXES_TEXT], uint32_t tenant, uint32_t block, const struct bitmap *full);
bool mailboxes_read(struct slice text, uint32_t *tenant, uint32_t *block, struct bitmap *full);
/* Whether any device of the tenant is full. */
bool mailboxes_any(struct mailboxes *m, uint32_t tenant, int64_t now_us);
/* Adds those of the set that are full to `full`. */
void mailboxes_find(struct mailboxes *m, uint32_t tenant, const struct target_set *set, int64_t now_us,
                    struct target_set *full);

#endif
