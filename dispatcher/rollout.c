#include "dispatcher/rollout.h"

/* --- reading ------------------------------------------------------------------------------------------------------ */

static uint32_t size_of(const Muster__V1__Wave *w, uint32_t devices, uint32_t canary)
{
    if (w->size_case == MUSTER__V1__WAVE__SIZE_GROUP || w->size_case == MUSTER__V1__WAVE__SIZE_FILTER)
        return canary;
    if (w->size_case == MUSTER__V1__WAVE__SIZE_PERCENT)
        return (uint32_t)(((uint64_t)devices * w->percent + 99) / 100);
    return w->size_case == MUSTER__V1__WAVE__SIZE_DEVICES ? w->devices : devices;
}

void rollout_read(struct rollout *r, const Muster__V1__Steering *in, uint32_t devices, uint32_t canary)
{
    uint64_t limit = 0;
    *r = (struct rollout){0};
    for (size_t i = 0; i < in->n_waves && i < ROLLOUT_WAVES; i++) {
        const Muster__V1__Wave *w = in->waves[i];
        struct rollout_wave *out = &r->wave[r->waves++];
        r->stated += size_of(w, devices, canary);
        limit = i + 1 == in->n_waves ? devices : r->stated;
        out->limit = limit > devices ? devices : (uint32_t)limit;
        if (w->release_case == MUSTER__V1__WAVE__RELEASE_SUCCESS_PERCENT)
            out->success_percent = w->success_percent;
        if (w->release_case == MUSTER__V1__WAVE__RELEASE_AFTER)
            out->after_ms = w->after->seconds * 1000 + w->after->nanos / 1000000;
    }
    for (size_t i = 0; i < in->n_thresholds && i < ROLLOUT_THRESHOLDS; i++) {
        const Muster__V1__Threshold *t = in->thresholds[i];
        r->threshold[r->thresholds++] =
            (struct rollout_threshold){.percent = t->percent,
                                       .minimum = t->minimum ? t->minimum : 1,
                                       .abort = t->action == MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_ABORT,
                                       .per_platform = t->per_platform};
    }
}

bool rollout_waits(const struct rollout *r)
{
    for (uint32_t i = 1; i < r->waves; i++)
        if (r->wave[i].after_ms)
            return true;
    return false;
}

bool rollout_too_large(const struct rollout *r, uint32_t devices)
{
    return r->waves > 1 && r->wave[r->waves - 2].limit >= devices;
}

bool rollout_too_small(const struct rollout *r, uint32_t devices)
{
    return r->waves && r->stated < devices;
}

/* --- waves -------------------------------------------------------------------------------------------------------- */

uint32_t rollout_next(const struct rollout *r, const struct rollout_counts *counts, uint32_t wave, int64_t since_ms,
                      uint32_t by_hand)
{
    if (wave + 1 >= r->waves)
        return wave;
    const struct rollout_wave *next = &r->wave[wave + 1];
    uint64_t succeeded = counts->all[STATE_SUCCEEDED];
    bool enough = next->success_percent && succeeded * 100 >= (uint64_t)r->wave[wave].limit * next->success_percent;
    bool time = next->after_ms && since_ms >= next->after_ms;
    return enough || time || by_hand > wave ? wave + 1 : wave;
}

/* --- thresholds --------------------------------------------------------------------------------------------------- */

static bool exceeds(const struct rollout_threshold *t, uint32_t platform, const uint32_t *counts,
                    struct rollout_verdict *v)
{
    uint32_t wrong = counts[STATE_FAILED] + counts[STATE_REJECTED] + counts[STATE_TIMED_OUT];
    uint32_t ended = wrong + counts[STATE_SUCCEEDED];
    if (ended < t->minimum || !wrong || (uint64_t)wrong * 100 < (uint64_t)ended * t->percent)
        return false;
    if (!v->threshold) {
        v->threshold = t;
        v->platform = platform;
        v->wrong = wrong;
        v->ended = ended;
    }
    return true;
}

struct rollout_verdict rollout_judge(const struct rollout *r, const struct rollout_counts *counts,
                                     const struct rollout_acted *acted, uint32_t canceled)
{
    struct rollout_verdict v = {0};
    for (uint32_t i = 0; i < r->thresholds; i++) {
        const struct rollout_threshold *t = &r->threshold[i];
        uint8_t bit = (uint8_t)(1u << i);
        for (uint32_t p = 0; t->per_platform && p < ROLLOUT_PLATFORMS; p++) {
            if (acted->platform[p] & bit || canceled >> p & 1 || !exceeds(t, p, counts->platform[p], &v))
                continue;
            v.acted.platform[p] |= bit;
            *(t->abort ? &v.cancel : &v.stop) |= 1u << p;
        }
        if (t->per_platform || acted->all & bit || !exceeds(t, 0, counts->all, &v))
            continue;
        v.acted.all |= bit;
        v.abort = v.abort || t->abort;
        v.pause = v.pause || !t->abort;
    }
    v.stop &= ~v.cancel;
    return v;
}
