#include "dispatcher/steer_check.h"

#include "dispatcher/filter_find.h"
#include "dispatcher/pace.h"
#include "dispatcher/request.h"
#include "dispatcher/rollout.h"
#include "dispatcher/validate.h"
#include "lib/store/db_dynamic.h"

static void end(struct steer_check *c, enum err err, const struct pg_error *error)
{
    c->failed = err != ERR_OK;
    if (err)
        request_store_status(&c->st, err, error);
    c->done(c);
}

/* --- the window --------------------------------------------------------------------------------------------------- */

static int64_t begins_ms(const struct db_accept *b)
{
    return b->steer.not_before_ms > b->created_ms ? b->steer.not_before_ms : b->created_ms;
}

int64_t steer_ends_ms(const struct db_accept *b)
{
    return b->steer.deliver_by_ms ? b->steer.deliver_by_ms : b->expires_ms;
}

/* Results: whether there is the default zone, then when the window opens in each. */
static void on_windows(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    struct steer_check *c = arg;
    (void)count;
    if (err) {
        end(c, err, error);
        return;
    }
    if (!pg_bool(results[0], 0, 0))
        status_violation(&c->st, "steering.window.time_zone", "%s is no time zone", c->batch->steer.zone);
    for (int i = 0; c->st.code == STATUS_OK && i < pg_rows(results[1]); i++) {
        int64_t opens = pg_null(results[1], i, 1) ? INT64_MAX : pg_int(results[1], i, 1);
        if (opens < steer_ends_ms(c->batch))
            continue;
        status_set(&c->st, STATUS_FAILED_PRECONDITION, "WINDOW_NEVER_OPENS",
                   "in %s the window does not open before the commands end", pg_text(results[1], i, 0));
        status_metadata(&c->st, "time_zone", "%.60s", pg_text(results[1], i, 0));
    }
    end(c, ERR_OK, NULL);
}

static void ask_windows(struct steer_check *c)
{
    const struct db_accept *b = c->batch;
    struct db_window window = db_window_of(&b->steer);
    size_t n = c->whom->count;
    struct slice *targets = arena_alloc(c->arena, (n + 1) * sizeof *targets);
    struct pg_txn *txn = targets ? pg_txn_new(c->pg, PG_ANY_LANE) : NULL;
    if (!txn) {
        end(c, ERR_NOMEM, NULL);
        return;
    }
    for (size_t i = 0; i < n; i++)
        targets[i] = (struct slice){c->whom->blocks[i].slots.bytes, BITMAP_BYTES};
    db_window_zone_known(txn, window.zone);
    db_window_of_devices(txn, b->tenant, b->blocks, targets, n, &window, begins_ms(b));
    pg_txn_submit(txn, on_windows, c);
}

/* --- waves and rate ----------------------------------------------------------------------------------------------- */

static void check_waves(struct steer_check *c)
{
    struct rollout plan;
    uint32_t devices = c->batch->device_count;
    rollout_read(&plan, c->in, devices, c->canary_devices);
    if (rollout_too_large(&plan, devices) && !c->batch->dynamic.len) /* who joins comes with the last wave */
        status_set(&c->st, STATUS_FAILED_PRECONDITION, "WAVES_TOO_LARGE",
                   "nothing of %u devices is left for the last wave", devices);
    else if (rollout_too_small(&plan, devices))
        status_set(&c->st, STATUS_FAILED_PRECONDITION, "WAVES_TOO_SMALL",
                   "the waves are %" PRIu64 " of %u devices; one without a size, at the end, takes the rest",
                   plan.stated, devices);
}

/* Whether everybody can have his turn in time. */
static void check_rate(struct steer_check *c)
{
    struct pace pace;
    pace_read(&pace, c->in->rate);
    double takes_ms = pace_least_ms(&pace, c->batch->device_count);
    double there_are_ms = (double)(steer_ends_ms(c->batch) - begins_ms(c->batch));
    if (c->st.code != STATUS_OK || !c->in->rate || takes_ms < there_are_ms)
        return;
    status_set(&c->st, STATUS_FAILED_PRECONDITION, "RATE_TOO_SLOW",
               "%u devices take %.0f seconds at this rate, and there are %.0f", c->batch->device_count, takes_ms / 1000,
               there_are_ms / 1000);
    status_metadata(&c->st, "seconds", "%.0f", takes_ms / 1000);
}

static void check_rest(struct steer_check *c)
{
    check_waves(c);
    check_rate(c);
    if (c->st.code == STATUS_OK && c->batch->steer.window)
        ask_windows(c);
    else
        end(c, ERR_OK, NULL);
}

/* --- the canary group --------------------------------------------------------------------------------------------- */

/* Those of the batch who are in it. False without memory. */
static bool take_canary(struct steer_check *c, const struct target_set *group)
{
    struct db_accept *b = c->batch;
    size_t n = c->whom->count + 1;
    int32_t *blocks = arena_alloc(c->arena, n * sizeof *blocks);
    struct bitmap *maps = arena_alloc(c->arena, n * sizeof *maps);
    struct slice *slots = arena_alloc(c->arena, n * sizeof *slots);
    if (!blocks || !maps || !slots)
        return false;
    for (size_t i = 0; i < c->whom->count; i++) {
        const struct target_block *own = &c->whom->blocks[i], *in = target_set_find(group, own->block);
        struct bitmap *map = &maps[b->canary_count];
        if (!in)
            continue;
        *map = own->slots;
        bitmap_and(map, &in->slots);
        unsigned count = bitmap_count(map);
        if (!count)
            continue;
        c->canary_devices += count;
        blocks[b->canary_count] = (int32_t)own->block;
        slots[b->canary_count++] = (struct slice){map->bytes, sizeof map->bytes};
    }
    b->canary_blocks = blocks;
    b->canary_slots = slots;
    return true;
}

static void on_canary(void *arg, const struct status *st, bool store, struct target_set *group)
{
    struct steer_check *c = arg;
    c->st = *st;
    c->failed = store;
    if (st->code != STATUS_OK) {
        c->done(c);
        return;
    }
    if (!take_canary(c, group)) {
        end(c, ERR_NOMEM, NULL);
        return;
    }
    if (c->canary_devices) {
        check_rest(c);
        return;
    }
    status_set(&c->st, STATUS_FAILED_PRECONDITION, "CANARY_OUTSIDE_TARGET",
               "the batch addresses no device of the canary group");
    end(c, ERR_OK, NULL);
}

static void check_steering(struct steer_check *c)
{
    const Muster__V1__Wave *first = c->in && c->in->n_waves ? c->in->waves[0] : NULL;
    struct filter_question question = {.tenant = c->batch->tenant};
    if (first && first->size_case == MUSTER__V1__WAVE__SIZE_FILTER) {
        question.text = first->filter;
    } else if (first && first->size_case == MUSTER__V1__WAVE__SIZE_GROUP) {
        question.groups = &first->group;
        question.group_count = 1;
    }
    if (question.text || question.groups)
        filter_find(c->pg, &question, on_canary, c);
    else if (c->in)
        check_rest(c);
    else
        end(c, ERR_OK, NULL);
}

/* --- whether it may be dynamic ------------------------------------------------------------------------------------ */

static void on_counted(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                       size_t count)
{
    struct steer_check *c = arg;
    (void)count;
    if (err) {
        end(c, err, error);
    } else if (pg_int(results[0], 0, 0) >= DYNAMIC_MAX) {
        status_set(&c->st, STATUS_FAILED_PRECONDITION, "DYNAMIC_TOO_MANY",
                   "there are %d dynamic batches already: seal or cancel some", DYNAMIC_MAX);
        end(c, ERR_OK, NULL);
    } else {
        check_steering(c);
    }
}

void steer_check_run(struct steer_check *c)
{
    if (!c->batch->dynamic.len) {
        check_steering(c);
        return;
    }
    if (c->guarded) { /* what cannot be undone is not done to whom nobody has seen yet */
        status_set(&c->st, STATUS_FAILED_PRECONDITION, "DYNAMIC_GUARDED",
                   "devices must not join a batch whose command the tenant's policy guards, nor a wipe");
        end(c, ERR_OK, NULL);
        return;
    }
    struct pg_txn *txn = pg_txn_new(c->pg, PG_ANY_LANE);
    if (!txn) {
        end(c, ERR_NOMEM, NULL);
        return;
    }
    db_dynamic_count(txn, c->batch->tenant);
    pg_txn_submit(txn, on_counted, c);
}
