#include "dispatcher/pace.h"

int64_t pace_per_ms(const Muster__V1__Rate *in)
{
    return in->per ? in->per->seconds * 1000 + in->per->nanos / 1000000 : PACE_PER_MIN_MS;
}

void pace_read(struct pace *p, const Muster__V1__Rate *in)
{
    *p = (struct pace){.credit = 1};
    if (!in)
        return;
    const Muster__V1__RateGrowth *growth = in->growth;
    double per_ms = (double)pace_per_ms(in);
    p->first = p->most = in->devices / per_ms;
    if (!growth)
        return;
    p->factor = growth->percent / 100.;
    p->step = growth->devices;
    p->success_percent = growth->success_percent;
    p->most = (growth->maximum ? growth->maximum : PACE_DEVICES_MAX) / per_ms;
}

double pace_rate(const struct pace *p)
{
    double rate = p->first;
    for (uint32_t i = 0; i < p->steps && rate < p->most; i++)
        rate *= p->factor;
    return rate < p->most ? rate : p->most;
}

double pace_least_ms(const struct pace *p, uint32_t devices)
{
    double ms = 0, rate = p->first, left = devices ? devices - 1. : 0;
    if (p->first <= 0)
        return 0;
    while (p->factor > 1 && left > p->step && rate < p->most) {
        ms += p->step / rate;
        left -= p->step;
        rate = rate * p->factor < p->most ? rate * p->factor : p->most;
    }
    return ms + left / rate;
}

void pace_resume(struct pace *p, int64_t since_ms, int64_t now_us)
{
    double turns = since_ms > 0 ? (double)since_ms * pace_rate(p) : 0;
    p->credit = turns < 1 ? turns : 1;
    p->last_us = now_us;
}

uint32_t pace_due(struct pace *p, int64_t now_us, bool runs)
{
    double rate = pace_rate(p), saved = rate * PACE_SAVED_MS;
    if (runs && p->last_us && now_us > p->last_us)
        p->credit += (double)(now_us - p->last_us) / 1000 * rate;
    p->last_us = now_us;
    if (p->credit > (saved > 1 ? saved : 1))
        p->credit = saved > 1 ? saved : 1;
    return runs ? (uint32_t)(p->credit + 1e-6) : 0;
}

void pace_taken(struct pace *p, uint32_t turns, bool dry)
{
    p->credit -= turns;
    if (p->credit < 0)
        p->credit = 0;
    if (dry && p->credit > 1)
        p->credit = 1;
}

static uint32_t outcomes(const uint32_t counts[STATE_COUNT])
{
    return counts[STATE_SUCCEEDED] + counts[STATE_FAILED] + counts[STATE_REJECTED] + counts[STATE_TIMED_OUT];
}

bool pace_may_step(const struct pace *p, const uint32_t counts[STATE_COUNT])
{
    if (p->factor <= 1 || pace_rate(p) >= p->most)
        return false;
    /* What another leader has counted last may not be there again yet. */
    if (outcomes(counts) < p->ended || counts[STATE_SUCCEEDED] < p->succeeded)
        return false;
    uint32_t ended = outcomes(counts) - p->ended, succeeded = counts[STATE_SUCCEEDED] - p->succeeded;
    return ended >= p->step && (uint64_t)succeeded * 100 >= (uint64_t)ended * p->success_percent;
}

void pace_step(struct pace *p, const uint32_t counts[STATE_COUNT])
{
    p->steps++;
    p->ended = outcomes(counts);
    p->succeeded = counts[STATE_SUCCEEDED];
}
