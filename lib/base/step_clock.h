/* The time of day for what waits for a moment: it follows the machine's, but for steps, of which somebody else is asked
 * first. Owns: struct step_clock. May call: nothing. Loop rule: none, pure: both clocks' readings are given.
 *
 * A clock that is set by an hour would send what is to wait, or end what has an hour left. So a step is not believed
 * until another machine's clock says which of the two is nearer to it; what a clock is slewed by is followed. */
#ifndef MUSTER_BASE_STEP_CLOCK_H
#define MUSTER_BASE_STEP_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* What is no step: programs that keep clocks right slew them by less between two looks, and a process may be held up
 * between its two readings. */
#define STEP_CLOCK_SLACK_MS 1000
/* A step that is doubted is asked about so often while nobody answers, and again so long after it was judged wrong. */
#define STEP_CLOCK_ASK_US   1000000
#define STEP_CLOCK_AGAIN_US 60000000

/* Zero-initialised believes the first reading. */
struct step_clock {
    bool begun, doubts;
    int64_t offset_ms; /* of the time of day from the steady clock, as it is believed, */
    int64_t seen_ms;   /* and as it was read last */
    int64_t ask_us;    /* not before */
};

/* The time to go by, from the time of day and a clock that never steps. */
int64_t step_clock_ms(struct step_clock *c, int64_t wall_ms, int64_t steady_us);
/* Whether another clock is to be asked now; true once, until it is time to ask again. */
bool step_clock_asks(struct step_clock *c, int64_t steady_us);
/* What the other clock shows. */
void step_clock_judge(struct step_clock *c, int64_t other_ms, int64_t steady_us);

#endif
