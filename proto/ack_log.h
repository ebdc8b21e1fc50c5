/* Entries of the acknowledgement log (column ack_log.entries): what a worker recorded in one flush.
 * Owns: the layout. May call: lib/base/buf. Loop rule: none, pure.
 *
 * Groups, one after another: batch (u64), tenant (u32), count (u32), then count times seq (u32), state byte (u8);
 * all little endian. 5 bytes an acknowledgement plus 16 a batch. The time of all is the row's at_ms. */
#ifndef MUSTER_PROTO_ACK_LOG_H
#define MUSTER_PROTO_ACK_LOG_H

#include "lib/base/buf.h"

#define ACK_LOG_GROUP 16
#define ACK_LOG_ENTRY 5

/* Writes a group's header; `count` entries must follow. */
void ack_log_put_group(struct buf *out, uint64_t batch, uint32_t tenant, uint32_t count);
void ack_log_put_entry(struct buf *out, uint32_t seq, uint8_t state);

struct ack_log_group {
    uint64_t batch;
    uint32_t tenant, count;
    const uint8_t *entries; /* borrowed, count * ACK_LOG_ENTRY bytes */
};
/* Takes the next group from the front of `s`. Returns 1, 0 at the end, -1 when the rest is no group. */
int ack_log_next(struct slice *s, struct ack_log_group *group);
static inline uint32_t ack_log_seq(const struct ack_log_group *g, uint32_t i)
{
    return load_u32le(g->entries + (size_t)i * ACK_LOG_ENTRY);
}
static inline uint8_t ack_log_state(const struct ack_log_group *g, uint32_t i)
{
    return g->entries[(size_t)i * ACK_LOG_ENTRY + 4];
}

#endif
