#include "lib/base/step_clock.h"

static int64_t distance(int64_t a, int64_t b)
{
    return a < b ? b - a : a - b;
}

int64_t step_clock_ms(struct step_clock *c, int64_t wall_ms, int64_t steady_us)
{
    c->seen_ms = wall_ms - steady_us / 1000;
    if (!c->begun)
        c->offset_ms = c->seen_ms;
    c->begun = true;
    c->doubts = distance(c->seen_ms, c->offset_ms) > STEP_CLOCK_SLACK_MS;
    if (!c->doubts)
        c->offset_ms = c->seen_ms;
    return steady_us / 1000 + c->offset_ms;
}

bool step_clock_asks(struct step_clock *c, int64_t steady_us)
{
    if (!c->doubts || steady_us < c->ask_us)
        return false;
    c->ask_us = steady_us + STEP_CLOCK_ASK_US;
    return true;
}

void step_clock_judge(struct step_clock *c, int64_t other_ms, int64_t steady_us)
{
    int64_t other = other_ms - steady_us / 1000;
    if (!c->doubts)
        return;
    if (distance(other, c->seen_ms) < distance(other, c->offset_ms)) {
        c->offset_ms = c->seen_ms;
        c->doubts = false;
        c->ask_us = 0;
    } else {
        c->ask_us = steady_us + STEP_CLOCK_AGAIN_US;
    }
}
