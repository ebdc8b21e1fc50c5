#include "dispatcher/retry_check.h"

#include "dispatcher/present.h"
#include "dispatcher/validate.h"
#include "lib/store/state.h"

static int64_t check_wait(struct status *st, const char *field, const Google__Protobuf__Duration *d, int64_t absent)
{
    int64_t ms = absent;
    if (d && (!validate_duration(&ms, d->seconds, d->nanos) || ms < RETRY_WAIT_MIN_MS || ms > RETRY_WAIT_MAX_MS)) {
        status_violation(st, field, "must be 1 second to 1 day");
        return absent;
    }
    return ms;
}

void retry_check(struct status *st, const Muster__V1__Retry *in, bool execution)
{
    if (!in->failed && !in->rejected && !in->timed_out)
        status_violation(st, "retry", "must say after which outcomes");
    if (in->timed_out && !execution)
        status_violation(st, "retry.timed_out", "needs steering.timeouts");
    if (in->attempts < 2 || in->attempts > RETRY_ATTEMPTS_MAX)
        status_violation(st, "retry.attempts", "must be 2 to %u", RETRY_ATTEMPTS_MAX);
    if (in->factor > RETRY_FACTOR_MAX)
        status_violation(st, "retry.factor", "must be 1 to %u", RETRY_FACTOR_MAX);
    int64_t initial = check_wait(st, "retry.initial", in->initial, RETRY_INITIAL_MS);
    if (check_wait(st, "retry.max", in->max, RETRY_WAIT_MAX_MS) < initial)
        status_violation(st, "retry.max", "is less than retry.initial");
}

void retry_read(struct db_retry *out, const Muster__V1__Retry *in)
{
    *out = (struct db_retry){.after = (in->failed ? 1 << STATE_FAILED : 0) | (in->rejected ? 1 << STATE_REJECTED : 0) |
                                      (in->timed_out ? 1 << STATE_TIMED_OUT : 0),
                             .attempts = (int16_t)in->attempts,
                             .factor = (int16_t)(in->factor ? in->factor : RETRY_FACTOR),
                             .initial_ms = validate_duration_or(in->initial, RETRY_INITIAL_MS)};
    out->max_ms = validate_duration_or(in->max, out->initial_ms > RETRY_MAX_MS ? out->initial_ms : RETRY_MAX_MS);
}

Muster__V1__Retry *retry_present(struct arena *a, const struct db_retry *retry)
{
    Muster__V1__Retry *out = retry->after ? arena_alloc(a, sizeof *out) : NULL;
    if (!out)
        return NULL;
    muster__v1__retry__init(out);
    out->failed = retry->after >> STATE_FAILED & 1;
    out->rejected = retry->after >> STATE_REJECTED & 1;
    out->timed_out = retry->after >> STATE_TIMED_OUT & 1;
    out->attempts = (uint32_t)retry->attempts;
    out->factor = (uint32_t)retry->factor;
    out->initial = present_duration(a, retry->initial_ms);
    out->max = present_duration(a, retry->max_ms);
    return out;
}
