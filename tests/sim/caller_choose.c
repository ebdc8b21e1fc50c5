/* What callers want: drawn from the seed. */
#include <stdio.h>
#include <stdlib.h>

#include "lib/store/block.h"
#include "lib/store/state.h"
#include "muster/v1/steering.pb-c.h"
#include "tests/sim/caller_parts.h"
#include "tests/sim/device.h"

#define RETRY_LIFE_MS 35000 /* so that seeds with retries take little longer than others */

static void choose_targets(struct world *w, struct wish *x)
{
    const struct device *some = &w->devices[below(w, (unsigned)w->device_count)];
    unsigned share = chance(w, 400) ? 1000 : 1 + below(w, 999);
    x->tenant = some->tenant;
    if (!x->steering_len && !*x->key && !x->steer.retry.after && chance(w, 250)) {
        x->single = true;
        snprintf(x->device_id, sizeof x->device_id, "%s", some->id);
        return;
    }
    bitmap_set(&x->targets[block_of(some->seq)], slot_of(some->seq));
    for (int i = 0; i < w->device_count; i++) {
        const struct device *d = &w->devices[i];
        if (d->tenant == x->tenant && chance(w, share))
            bitmap_set(&x->targets[block_of(d->seq)], slot_of(d->seq));
    }
}

static void put_steering(struct wish *x, const Muster__V1__Steering *steering)
{
    if (muster__v1__steering__get_packed_size(steering) > sizeof x->steering)
        abort();
    x->steering_len = muster__v1__steering__pack(steering, x->steering);
}

/* Some devices first, so many or a group; the others later, by hand, or when half of the first have succeeded. */
static void choose_waves(struct world *w, struct wish *x, Muster__V1__Steering *steering)
{
    Muster__V1__Wave first = MUSTER__V1__WAVE__INIT, rest = MUSTER__V1__WAVE__INIT;
    Muster__V1__Wave *waves[] = {&first, &rest};
    Google__Protobuf__Duration after = GOOGLE__PROTOBUF__DURATION__INIT;
    static char group[] = "canaries";
    first.size_case = MUSTER__V1__WAVE__SIZE_DEVICES;
    first.devices = 1 + below(w, 8);
    switch (below(w, 3)) {
    case 0:
        rest.release_case = MUSTER__V1__WAVE__RELEASE_AFTER;
        after.seconds = between(w, 1, 8);
        rest.after = &after;
        break;
    case 1:
        rest.release_case = MUSTER__V1__WAVE__RELEASE_BY_HAND;
        rest.by_hand = true;
        break;
    default:
        rest.release_case = MUSTER__V1__WAVE__RELEASE_SUCCESS_PERCENT;
        rest.success_percent = 50;
        break;
    }
    x->wave_after_us =
        rest.release_case == MUSTER__V1__WAVE__RELEASE_BY_HAND || chance(w, 300) ? between(w, 500 * MS, 15 * S) : 0;
    if ((w->wants == WANTS_DYNAMIC || w->wants == WANTS_THRESHOLDS) && chance(w, 300)) {
        x->canary = true;
        first.size_case = MUSTER__V1__WAVE__SIZE_GROUP;
        first.group = group;
    }
    x->steer.rollout = true;
    x->steer.waves = 2;
    steering->n_waves = 2;
    steering->waves = waves;
    put_steering(x, steering);
    steering->n_waves = 0; /* they are here no longer */
    steering->waves = NULL;
}

/* A few devices a second, which sometimes become more. */
static void choose_rate(struct world *w, struct wish *x, Muster__V1__Rate *rate, Muster__V1__RateGrowth *growth)
{
    muster__v1__rate__init(rate);
    muster__v1__rate_growth__init(growth);
    rate->devices = 1 + below(w, 8);
    growth->percent = 150;
    growth->devices = 1 + below(w, 5);
    growth->success_percent = 50;
    growth->maximum = rate->devices + below(w, 8);
    rate->growth = chance(w, 400) ? growth : NULL;
    x->steer.rollout = true;
}

static void choose_steering(struct world *w, struct wish *x)
{
    Muster__V1__Steering steering = MUSTER__V1__STEERING__INIT;
    Muster__V1__Rate rate;
    Muster__V1__RateGrowth growth;
    if (chance(w, 150))
        snprintf(x->key, sizeof x->key, "key-%u", below(w, 2));
    if (chance(w, 200)) {
        x->pause_after_us = between(w, 1 * MS, 6 * S);
        x->undo_after_us = chance(w, 850) ? between(w, 1 * MS, 10 * S) : 0;
    }
    x->some_after_us = chance(w, 120) ? between(w, 1 * MS, 6 * S) : 0;
    if (!chance(w, 250))
        return;
    x->steer.not_before_ms = chance(w, 400) ? between(w, 1, 8000) : 0;
    x->steer.deliver_by_ms = chance(w, 300) ? x->steer.not_before_ms + between(w, 1000, 15000) : 0;
    x->steer.execution_ms = chance(w, 300) ? between(w, 1000, 10000) : 0;
    if (x->steer.deliver_by_ms >= x->expires_after_ms)
        x->steer.deliver_by_ms = 0;
    if (x->steer.not_before_ms >= x->expires_after_ms)
        x->steer.not_before_ms = 0;
    if (chance(w, 350)) {
        choose_rate(w, x, &rate, &growth);
        steering.rate = &rate;
    }
    if (chance(w, 400))
        choose_waves(w, x, &steering);
    else
        put_steering(x, &steering);
    if (!x->steering_len) /* what it says is in `steer` */
        x->steering[x->steering_len++] = 0x12, x->steering[x->steering_len++] = 0;
}

/* Outcomes that are tried again, a few times. */
static void choose_retry(struct world *w, struct wish *x)
{
    struct db_retry *r = &x->steer.retry;
    r->after = 1 << STATE_FAILED | (chance(w, 500) ? 1 << STATE_REJECTED : 0);
    if (x->steer.execution_ms && chance(w, 700))
        r->after |= 1 << STATE_TIMED_OUT;
    r->attempts = (int16_t)(chance(w, 800) ? between(w, 2, 4) : between(w, 5, STATE_ATTEMPTS_MAX));
    r->factor = (int16_t)between(w, 1, 3);
    r->initial_ms = between(w, 1000, 3000);
    r->max_ms = r->initial_ms + between(w, 0, 5000);
}

/* Too much that goes wrong pauses the batch, until it is resumed perhaps, or is the end of it. */
static void choose_threshold(struct world *w, struct wish *x)
{
    Muster__V1__Steering steering = MUSTER__V1__STEERING__INIT;
    Muster__V1__Threshold threshold = MUSTER__V1__THRESHOLD__INIT;
    Muster__V1__Threshold *all[] = {&threshold};
    threshold.percent = 1 + below(w, 40);
    threshold.minimum = below(w, 6);
    threshold.action = chance(w, 500) ? MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_PAUSE
                                      : MUSTER__V1__THRESHOLD_ACTION__THRESHOLD_ACTION_ABORT;
    steering.n_thresholds = 1;
    steering.thresholds = all;
    x->steer.rollout = true;
    x->resume_after_us = chance(w, 600) ? between(w, 1 * S, 15 * S) : 0;
    if (chance(w, 500))
        choose_waves(w, x, &steering);
    else
        put_steering(x, &steering);
}

/* It is for one of the group at least, or would be refused. */
static void choose_canary(struct world *w, struct wish *x)
{
    for (int i = 0; i < w->device_count; i++) {
        const struct device *d = &w->devices[i];
        if (d->tenant != x->tenant || !caller_is_canary(d->seq))
            continue;
        bitmap_set(&x->targets[block_of(d->seq)], slot_of(d->seq));
        return;
    }
    x->canary = false;
    x->steering_len = 0;
    x->steer.rollout = false;
    x->steer.waves = 0;
    x->wave_after_us = x->resume_after_us = 0;
}

/* To whoever is meant until it is sealed, or over. */
static void choose_dynamic(struct world *w, struct wish *x)
{
    x->dynamic = true;
    x->valued = x->single = false;
    /* Behind what a steering may have of times: at most 23 s. */
    x->expires_after_ms = x->steering_len ? between(w, 25000, 120000) : between(w, 5000, 120000);
    x->seal_after_us = chance(w, 500) ? between(w, 1 * MS, 40 * S) : 0;
    if (chance(w, 400))
        snprintf(x->key, sizeof x->key, "key-%u", below(w, 2));
}

void caller_choose(struct world *w, struct wish *x, bool steered)
{
    x->priority = (int16_t)between(w, 1, 3);
    x->expires_after_ms = chance(w, 300) ? between(w, 500, 5000) : between(w, 5000, 60000);
    x->cancel_after_us = chance(w, 200) ? between(w, 1 * MS, 6 * S) : 0;
    if (steered)
        choose_steering(w, x);
    if (w->wants == WANTS_RETRY && x->expires_after_ms > RETRY_LIFE_MS)
        x->expires_after_ms = RETRY_LIFE_MS;
    if (w->wants == WANTS_RETRY && chance(w, 600))
        choose_retry(w, x);
    if (w->wants == WANTS_THRESHOLDS && !x->steering_len && chance(w, 600))
        choose_threshold(w, x);
    choose_targets(w, x);
    if (x->canary)
        choose_canary(w, x);
    if (w->wants == WANTS_DYNAMIC && !x->canary && chance(w, 600))
        choose_dynamic(w, x);
}
