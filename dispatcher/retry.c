#include "dispatcher/retry.h"

/* 0 … 2^32 - 1, spread evenly (the finalizer of MurmurHash3). */
static uint32_t spread(uint64_t v)
{
    v = (v ^ v >> 33) * 0xff51afd7ed558ccdull;
    v = (v ^ v >> 33) * 0xc4ceb9fe1a85ec53ull;
    return (uint32_t)(v >> 32);
}

int64_t retry_wait_ms(const struct db_retry *retry, unsigned attempts, uint64_t batch, uint32_t seq)
{
    int64_t ms = retry->initial_ms;
    for (unsigned i = 1; i < attempts && ms < retry->max_ms; i++)
        ms *= retry->factor;
    if (ms > retry->max_ms)
        ms = retry->max_ms;
    int64_t around = ms * RETRY_JITTER_PERCENT / 100;
    uint32_t chance = spread(batch * 0x9e3779b97f4a7c15ull ^ (uint64_t)attempts << 32 ^ seq);
    return ms - around + (int64_t)((uint64_t)(2 * around) * chance >> 32);
}
