#include "proto/ack_log.h"

void ack_log_put_group(struct buf *out, uint64_t batch, uint32_t tenant, uint32_t count)
{
    buf_put_u64le(out, batch);
    buf_put_u32le(out, tenant);
    buf_put_u32le(out, count);
}

void ack_log_put_entry(struct buf *out, uint32_t seq, uint8_t state)
{
    uint8_t p[ACK_LOG_ENTRY];
    store_u32le(p, seq);
    p[4] = state;
    buf_put(out, p, sizeof p);
}

int ack_log_next(struct slice *s, struct ack_log_group *group)
{
    if (s->len == 0)
        return 0;
    struct slice entries;
    if (!slice_u64le(s, &group->batch) || !slice_u32le(s, &group->tenant) || !slice_u32le(s, &group->count) ||
        !slice_bytes(s, (size_t)group->count * ACK_LOG_ENTRY, &entries))
        return -1;
    group->entries = entries.data;
    return 1;
}
