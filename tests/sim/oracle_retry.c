#include "tests/sim/oracle_retry.h"

#include <inttypes.h>

#include "tests/sim/fault.h"

#define LEAST_WAIT_PERCENT 80 /* a wait is a fifth shorter, at most */
#define MOST_WAIT_PERCENT  120
#define HEARD_US           (2 * S)  /* until the leader has heard from PostgreSQL what is durable there, at most */
#define AGAIN_US           (12 * S) /* from when it is due until it is on its way, at most, where nothing is wrong */

static struct command *command_of(struct world *w, const struct device *d, uint64_t batch)
{
    return &oracle_seen(w, batch)->commands[d->index];
}

static bool tried_after(const struct row_batch *row, unsigned state)
{
    return row->control.retry_after >> state & 1;
}

bool retry_was_tried(const struct row_batch *row, const struct command *c)
{
    for (unsigned outcome = 1; outcome + OUTCOME_STATE <= STATE_REJECTED; outcome++)
        if (c->tries.outcomes >> outcome & 1 && tried_after(row, outcome + OUTCOME_STATE))
            return true;
    return false;
}

/* All of the batch may be routed anew, for something was asked for, failed, or is another's now: then what has just had
 * an outcome, of which the leader has not heard yet, goes with it. */
static bool is_routed_anew(const struct world *w, const struct row_batch *row)
{
    const struct row_control *k = &row->control;
    const struct oracle *o = w->oracle;
    return k->request || k->waves || k->not_before_ms || o->gates || o->leaders > 1 || o->redis_cuts;
}

/* By a leader that has led all the while. */
static bool is_led(const struct world *w)
{
    for (int i = 0; i < w->dispatcher_count; i++)
        if (!w->dispatchers[i].running || w->dispatchers[i].lives > 1 || w->dispatchers[i].stopped)
            return false;
    return w->oracle->leaders <= 1;
}

bool retry_came_back(const struct world *w, const struct command *c, unsigned attempt, int64_t sent_us)
{
    const struct tries *t = &c->tries;
    bool tried_again = t->said_us && !t->sent_since && attempt > t->done && sent_us > t->said_us;
    int64_t put_off_us = t->put_off_us > c->canceled_us ? t->put_off_us : c->canceled_us;
    bool put_off = t->put_off && is_led(w) && sent_us > put_off_us + HEARD_US;
    return !w->oracle->redis_lost_us && (tried_again || put_off);
}

bool retry_came_back_in_time(const struct world *w, const struct command *c)
{
    const struct tries *t = &c->tries;
    int64_t back_us = t->put_off ? t->put_off_us : t->said_us;
    back_us = back_us && back_us < c->canceled_us ? c->canceled_us : back_us;
    return c->canceled_us && back_us && back_us + AGAIN_US < c->over_us && !w->oracle->redis_lost_us;
}

void retry_delivered(struct world *w, const struct device *d, const struct row_batch *row, unsigned attempt,
                     int64_t sent_us)
{
    struct tries *t = &command_of(w, d, (uint64_t)row->id)->tries;
    bool kept = !w->oracle->redis_lost_us;
    bool anew = kept && attempt > t->done; /* a hint that comes late is no news to the device */
    int64_t wait_us = row->control.retry_initial_ms * MS * LEAST_WAIT_PERCENT / 100;
    /* Where no outcome in time is one, too, that may have come before; and the leader, who has not heard yet that it
     * was put off, has it as sent. */
    if (kept && row->control.retry_after && !tried_after(row, STATE_TIMED_OUT) && !is_routed_anew(w, row) &&
        t->put_off && t->put_off_on == d->connections && attempt > t->put_off)
        violated(w, "device %s gets attempt %u of %" PRId64 ", and has put off attempt %u", d->id, attempt, row->id,
                 t->put_off);
    if (anew && !tried_after(row, STATE_TIMED_OUT) && t->said_us && sent_us > t->said_us && !fault_plan(w)->skews &&
        !is_routed_anew(w, row) && !t->was_put_off && sent_us < t->done_us + wait_us)
        violated(w, "device %s is sent %" PRId64 " again %.3f s after its outcome", d->id, row->id,
                 (double)(sent_us - t->done_us) / 1e6);
    t->put_off = 0;
    t->attempt = (uint8_t)attempt;
    t->came_on = d->connections;
}

void retry_executed(struct world *w, const struct device *d, const struct row_batch *row, unsigned attempt,
                    uint8_t outcome)
{
    struct command *c = command_of(w, d, (uint64_t)row->id);
    struct tries *t = &c->tries;
    if (t->executions && !tried_after(row, c->executed + OUTCOME_STATE))
        violated(w, "device %s executes %" PRId64 " twice", d->id, row->id);
    t->executions++;
    if (t->executions > (unsigned)row->control.retry_attempts && t->executions > 1)
        violated(w, "device %s executes %" PRId64 " %u times of %d", d->id, row->id, t->executions,
                 row->control.retry_attempts);
    t->done = (uint8_t)attempt;
    t->outcomes |= (uint8_t)(1 << outcome);
    t->done_us = w->now_us;
    t->said_us = 0;
    t->put_off = 0;
    t->done_on = d->connections;
}

void retry_resent(struct world *w, const struct device *d, uint64_t batch)
{
    struct tries *t = &command_of(w, d, batch)->tries;
    t->put_off = 0;
    t->resent = t->sent_since = true;
}

void retry_put_off(struct world *w, const struct device *d, uint64_t batch)
{
    command_of(w, d, batch)->tries.resent = false;
}

void retry_acknowledged(struct world *w, const struct device *d, const struct row_batch *row, uint8_t outcome)
{
    struct command *c = command_of(w, d, (uint64_t)row->id);
    struct tries *t = &c->tries;
    t->put_off = 0;
    if (outcome + OUTCOME_STATE > STATE_REJECTED) {
        /* Else it was done since, or what another connection gave at its beginning may cross it. */
        bool counts = t->attempt > t->done && !t->resent && t->came_on == d->connections;
        t->put_off = counts ? t->attempt : 0;
        t->put_off_us = w->now_us;
        t->was_put_off = true;
        t->put_off_on = d->connections;
    } else if (tried_after(row, outcome + OUTCOME_STATE)) {
        /* What is said on another connection than it came on may cross what that gave at its beginning. */
        t->said_us = t->done_on == d->connections && t->came_on == d->connections ? w->now_us : 0;
        t->sent_since = false;
    } else if (!c->acknowledged) {
        c->acknowledged = outcome;
        c->acknowledged_us = w->now_us;
    }
}

/* It ended before its batch did, with an outcome after which it is to be tried again. */
static bool is_given_up(const struct world *w, const struct row_batch *row, const struct command *c)
{
    int64_t slack_ms = fault_plan(w)->skews ? SKEW_MS : 1000; /* no longer than the least wait, it is no more */
    int64_t over_ms = WORLD_EPOCH_MS + c->over_us / 1000;
    return !row->cancel_requested_ms && !c->some_request && over_ms < row->expires_ms - slack_ms;
}

void retry_judge(struct world *w, const struct row_batch *row, const struct device *d, uint8_t byte, bool was_there)
{
    const struct command *c = command_of(w, d, (uint64_t)row->id);
    const struct row_control *k = &row->control;
    const struct tries *t = &c->tries;
    enum command_state state = state_of(byte);
    int64_t end_us = (row->expires_ms - WORLD_EPOCH_MS) * MS;
    int64_t waits_us = k->retry_initial_ms * MS * LEAST_WAIT_PERCENT / 100;
    if (!k->retry_after || d->deleted || fault_plan(w)->quarantine_after)
        return;
    unsigned deliveries = state_attempts(byte) > t->attempt ? state_attempts(byte) : t->attempt;
    bool few = tried_after(row, state) && deliveries < (unsigned)k->retry_attempts;
    if (few && is_given_up(w, row, c))
        violated(w, "batch %" PRId64 " of %s is %s after %u deliveries of %d", row->id, d->id, state_name(state),
                 deliveries, k->retry_attempts);
    else if (few && was_there && t->said_us &&
             t->done_us + k->retry_max_ms * MS * MOST_WAIT_PERCENT / 100 + AGAIN_US < end_us)
        violated(w, "batch %" PRId64 " of %s is not tried again", row->id, d->id);
    else if (state == STATE_EXPIRED && !w->oracle->redis_lost_us && !t->was_put_off && t->said_us &&
             t->said_us < end_us && t->done_us + waits_us > end_us && !fault_plan(w)->skews)
        violated(w, "batch %" PRId64 " of %s is EXPIRED, and waited to be tried again", row->id, d->id);
}
