/* Items of a worker's inbox. An entry of the Redis list is one or more items, one after another.
 * Owns: the layout. May call: lib/base/buf, lib/base/err. Loop rule: none, pure.
 *
 * kind (u8), then, little endian:
 *   ROUTE     batch u64, tenant u32, block u32, n u16, n × slot u16; or n = 0xffff and a bitmap of 128 bytes
 *   RELEASE, AGAIN  number u64, then as ROUTE
 *   CANCEL    batch u64
 *   TAKEOVER  tenant u32, seq u32
 *   REVOKE    tenant u32, seq u32, issued_before_ms u64
 *   HOLD      batch u64, number u64
 *   GATE      number u64
 *   REPORT    number u64
 *   CHECK     tenant u32, block u32
 *   SPEC      batch u64, n u32, n bytes: behind all items of other kinds, so that who does not know it loses nothing
 * An item is a hint: whatever is lost is found again because its state byte is not terminal. */
#ifndef MUSTER_PROTO_INBOX_H
#define MUSTER_PROTO_INBOX_H

#include <stdbool.h>

#include "lib/base/buf.h"

#define INBOX_BITMAP_BYTES 128
#define INBOX_SLOTS_MAX    64 /* more slots than this go as a bitmap: 2 bytes each against 128 */

enum inbox_kind {
    INBOX_ROUTE = 1, /* commands of a batch for devices of one block */
    INBOX_CANCEL,    /* drop what is unsent of a batch, record it, then confirm */
    INBOX_TAKEOVER,  /* the device has connected elsewhere: close its session unless presence says it is still here */
    INBOX_REVOKE,    /* refuse its tokens issued before a time, close sessions made with them */
    INBOX_RELEASE,   /* ROUTE of a batch that was held: counts unless it was held again since, under a higher number */
    INBOX_HOLD,      /* odd number: forget what is unsent of a batch, record what is sent; even: it may be sent again.
                        Then confirm */
    INBOX_GATE,      /* gates have changed: read them, act, then confirm */
    INBOX_AGAIN,     /* RELEASE of commands that have been sent before: how often, Redis knows */
    INBOX_SPEC,      /* what batch:<id> says of a batch of which something is routed here for the first time:
                        workers/drained.h says when that counts */
    INBOX_REPORT = 16, /* say which sessions are here, as report `number` (lib/store/live_look.h) */
    INBOX_CHECK, /* presence of the block may be wrong: compare and repair what is this worker's; tenant 0: devices
                    that came lately may be in no presence */
};

struct inbox_item {
    enum inbox_kind kind;
    uint64_t batch, number;
    uint32_t tenant, block, seq;
    int64_t issued_before_ms;
    uint8_t slots[INBOX_BITMAP_BYTES]; /* ROUTE, RELEASE, AGAIN: bitmap, least significant bit first */
    struct slice spec;                 /* SPEC: encoded muster.internal.v1.BatchSpec; read, it borrows the entry */
};

void inbox_put(struct buf *out, const struct inbox_item *item);
/* Takes the next item from the front of `s`. Returns 1, 0 at the end, -1 when the rest is no item. */
int inbox_next(struct slice *s, struct inbox_item *item);

#endif
