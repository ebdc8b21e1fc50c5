#include "dispatcher/leader_mailboxes.h"

#include "dispatcher/mailboxes.h"
#include "lib/base/clock.h"

#define TELL_MAX 64 /* blocks told of in one tick: ten thousand within eight seconds */

void leader_mailboxes_tick(struct reign *r)
{
    int64_t now_us = clock_mono_us();
    struct open_counts_block *b;
    for (int i = 0; i < TELL_MAX && r->loaded; i++) {
        char text[MAILBOXES_TEXT];
        struct bitmap full;
        if (!(b = open_counts_next(&r->set.open, now_us - MAILBOXES_TELL_US, now_us)))
            return;
        open_counts_full(&r->set.open, b, &full);
        if (r->on_full) /* without the way through Redis, which may be away */
            r->on_full(r->arg, b->tenant, b->block, &full);
        mailboxes_write(text, b->tenant, b->block, &full);
        live_publish(r->live, text);
    }
}
