/* Tags, attributes and last sight of the devices of a page.
 * Owns: nothing. May call: lib/store/db_label, generated messages. Loop rule: none: adds statements, reads results. */
#ifndef MUSTER_DISPATCHER_DEVICE_LABELS_H
#define MUSTER_DISPATCHER_DEVICE_LABELS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/arena.h"
#include "lib/store/pg.h"
#include "muster/v1/device_service.pb-c.h"

/* Adds two statements about these devices, which are in order of seq. */
void device_labels_ask(struct pg_txn *txn, int32_t tenant, Muster__V1__Device *const *devices, size_t n);
/* Fills in what the two results say. Returns how many of the devices, from the first, fit into an answer with it: at
 * least one; 0 without memory (arena->failed is set then). */
size_t device_labels_put(struct arena *a, Muster__V1__Device **devices, size_t n,
                         const struct pg_result *const *results);

#endif
