#include "dispatcher/revoke.h"

#include <stdlib.h>

#include "lib/store/live.h"
#include "proto/inbox.h"

struct telling {
    struct live *live;
    struct buf items;
};

static void pushed(void *arg, enum err err, int64_t value)
{
    (void)arg, (void)err, (void)value;
}

static void on_workers(void *arg, enum err err, const struct live_worker *workers, size_t count)
{
    struct telling *t = arg;
    for (size_t i = 0; err == ERR_OK && i < count; i++)
        if (workers[i].alive)
            live_inbox_push(t->live, workers[i].number, LIVE_URGENT, buf_slice(&t->items), pushed, NULL);
    buf_free(&t->items);
    free(t);
}

void revoke_tell_workers(struct dispatcher *d, int32_t tenant, const struct revoke_entry *entries, size_t n)
{
    struct telling *t = live_up(d->live) && n ? calloc(1, sizeof *t) : NULL;
    if (!t)
        return;
    t->live = d->live;
    for (size_t i = 0; i < n; i++) {
        struct inbox_item item = {.kind = INBOX_REVOKE,
                                  .tenant = (uint32_t)tenant,
                                  .seq = entries[i].seq,
                                  .issued_before_ms = entries[i].issued_before_ms};
        inbox_put(&t->items, &item);
    }
    if (t->items.failed) {
        buf_free(&t->items);
        free(t);
        return;
    }
    live_workers(d->live, on_workers, t);
}
