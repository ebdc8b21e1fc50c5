#include "dispatcher/mailbox_check.h"

#include <string.h>

#include "dispatcher/request.h"
#include "lib/base/clock.h"
#include "lib/store/db_device.h"

void mailbox_check_find(struct mailbox_check *c, const struct target_set *set)
{
    mailboxes_find(c->mailboxes, (uint32_t)c->tenant, set, clock_mono_us(), &c->full);
    c->count = target_set_count(&c->full);
}

static void on_ids(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                   size_t count)
{
    struct mailbox_check *c = arg;
    (void)count;
    if (err) {
        request_store_status(&c->st, err, error);
    } else {
        const char *text = pg_text(results[0], 0, 1);
        char *rest = arena_copy(c->arena, text, strlen(text)), *id;
        while (rest && (id = strsep(&rest, ",")) != NULL && *id && c->kept < MAILBOX_NAMED)
            c->ids[c->kept++] = id;
    }
    c->done(c);
}

void mailbox_check_name(struct mailbox_check *c)
{
    int32_t seqs[MAILBOX_NAMED];
    size_t n = 0;
    for (size_t i = 0; i < c->full.count && n < MAILBOX_NAMED; i++) {
        const struct target_block *b = &c->full.blocks[i];
        for (unsigned slot = bitmap_next(&b->slots, 0); slot < BLOCK_SLOTS && n < MAILBOX_NAMED;
             slot = bitmap_next(&b->slots, slot + 1))
            seqs[n++] = (int32_t)block_seq(b->block, slot);
    }
    struct pg_txn *txn = pg_txn_new(c->pg, PG_ANY_LANE);
    if (txn)
        db_device_ids(txn, c->tenant, seqs, seqs, n);
    pg_txn_submit(txn, on_ids, c);
}

void mailbox_check_refuse(const struct mailbox_check *c, struct status *st)
{
    for (size_t i = 0; i < c->kept && i < STATUS_VIOLATIONS_MAX; i++)
        status_violation(st, "target", "%s has as many open commands as it may", c->ids[i]);
    status_set(st, STATUS_FAILED_PRECONDITION, "MAILBOX_FULL",
               "%u of the devices have as many open commands as they may: %lld", c->count, (long long)c->limit);
    status_metadata(st, "full_count", "%u", c->count);
    status_metadata(st, "limit", "%lld", (long long)c->limit);
}

void mailbox_check_free(struct mailbox_check *c)
{
    target_set_free(&c->full);
}
