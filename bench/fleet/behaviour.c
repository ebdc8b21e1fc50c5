#include "bench/fleet/behaviour.h"

/* One stream of decisions each, so that they do not hang together. */
enum salt { SALT_SILENT = 1, SALT_OUTCOME, SALT_NOT_NOW, SALT_CRASH, SALT_CRASH_WHERE, SALT_DUPLICATE, SALT_THINK };

/* A number in [0, 1) from 64 mixed bits. */
static double share_of(uint64_t h)
{
    return (double)(h >> 11) * 0x1p-53;
}

static uint64_t hash(uint64_t device, const uint8_t *id, enum salt salt, unsigned nth)
{
    uint64_t h = behaviour_mix(device ^ (uint64_t)salt << 32 ^ nth);

    return id ? behaviour_mix(h ^ load_u64le(id) ^ behaviour_mix(load_u64le(id + 8))) : h;
}

uint64_t behaviour_device(const struct behaviour *b, const char *device)
{
    uint64_t h = b->seed;

    for (; *device; device++)
        h = (h ^ (uint8_t)*device) * 0x100000001b3u;
    return behaviour_mix(h);
}

bool behaviour_is_silent(const struct behaviour *b, uint64_t device)
{
    return b->silent > 0 && share_of(hash(device, NULL, SALT_SILENT, 0)) < b->silent;
}

enum outcome behaviour_outcome(const struct behaviour *b, uint64_t device, const uint8_t id[UUID_BYTES],
                               unsigned received)
{
    if (b->not_now > 0 && share_of(hash(device, id, SALT_NOT_NOW, received)) < b->not_now)
        return OUTCOME_NOT_NOW;
    if (b->failed <= 0 && b->rejected <= 0)
        return OUTCOME_SUCCEEDED;
    double share = share_of(hash(device, id, SALT_OUTCOME, 0));
    if (share < b->failed)
        return OUTCOME_FAILED;
    return share < b->failed + b->rejected ? OUTCOME_REJECTED : OUTCOME_SUCCEEDED;
}

enum crash behaviour_crash(const struct behaviour *b, uint64_t device, const uint8_t id[UUID_BYTES], unsigned received)
{
    if (b->crash <= 0 || share_of(hash(device, id, SALT_CRASH, received)) >= b->crash)
        return CRASH_NONE;
    return hash(device, id, SALT_CRASH_WHERE, received) & 1 ? CRASH_BEFORE_EXECUTING : CRASH_AFTER_EXECUTING;
}

bool behaviour_duplicates(const struct behaviour *b, uint64_t device, const uint8_t id[UUID_BYTES])
{
    return b->duplicate > 0 && share_of(hash(device, id, SALT_DUPLICATE, 0)) < b->duplicate;
}

int64_t behaviour_think_us(const struct behaviour *b, uint64_t device, const uint8_t id[UUID_BYTES])
{
    int64_t span = b->think_max_us - b->think_min_us;

    if (span <= 0)
        return b->think_min_us;
    return b->think_min_us + (int64_t)(share_of(hash(device, id, SALT_THINK, 0)) * (double)span);
}
