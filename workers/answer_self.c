#include "workers/answer_self.h"

#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/store/db_block.h"
#include "lib/store/live.h"
#include "workers/acks.h"
#include "workers/gates.h"
#include "workers/lease.h"
#include "workers/worker.h"

#define REFRESH_S 2.0 /* devices registered meanwhile are claimed then */
#define RETRY_S   0.2

struct answer_self {
    struct worker *worker;
    struct ev_timer timer;
    bool reading, failed, ready;
    bool whole;           /* claim all at the next look, whether or not it was claimed before */
    uint64_t seen, known; /* digests of the devices read last, and of those claimed: claiming is work for Redis */
    unsigned under_way;   /* claims */
};

struct claim {
    struct answer_self *self;
    uint32_t tenant, block;
};

static void again(struct answer_self *self, double seconds)
{
    ev_timer_stop(self->worker->loop, &self->timer);
    ev_timer_set(&self->timer, seconds, 0);
    ev_timer_start(self->worker->loop, &self->timer);
}

static void claims_done(struct answer_self *self)
{
    if (self->under_way > 0 || self->reading)
        return;
    self->ready = self->ready || !self->failed;
    self->known = self->failed ? 0 : self->seen;
    again(self, self->failed ? RETRY_S : REFRESH_S);
}

/* What was open for the devices is answered too. */
static void claimed(void *arg, enum err err, const struct live_attached *slots, size_t count)
{
    struct claim *c = arg;
    struct answer_self *self = c->self;
    for (size_t i = 0; i < count && !gates_closed(self->worker->gates, c->tenant); i++)
        for (size_t k = 0; k < slots[i].count; k++)
            acks_add(self->worker->acks, &(struct ack){.batch = slots[i].pending[k].batch,
                                                       .tenant = c->tenant,
                                                       .seq = block_seq(c->block, slots[i].slot),
                                                       .event = EVENT_SUCCEED,
                                                       .attempts = 1});
    /* Before gates are known nothing is answered: all is claimed once more then, soon. */
    bool unknown = count && !gates_known(self->worker->gates);
    self->whole = self->whole || unknown;
    self->failed = self->failed || err || unknown;
    self->under_way--;
    free(c);
    claims_done(self);
}

static void claim(struct answer_self *self, const struct db_block *b)
{
    struct worker *w = self->worker;
    uint16_t slots[BLOCK_SLOTS];
    size_t n = 0;
    struct claim *c = malloc(sizeof *c);
    if (!c) {
        self->failed = true;
        return;
    }
    *c = (struct claim){self, b->tenant, b->block};
    for (unsigned slot = bitmap_next(&b->slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&b->slots, slot + 1))
        slots[n++] = (uint16_t)slot;
    self->under_way++;
    live_attach(w->live, b->tenant, b->block, lease_number(w->lease), slots, n, UINT16_MAX, claimed, c);
}

/* FNV-1a. */
static uint64_t digest(uint64_t sum, const void *data, size_t len)
{
    const uint8_t *byte = data;
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ byte[i]) * 0x100000001b3u;
    return sum;
}

/* Of this worker's share. */
static bool next_block(const struct answer_self *self, const struct pg_result *r, int *row, struct db_block *b)
{
    const struct worker_options *o = &self->worker->options;
    for (; *row < pg_rows(r); ++*row)
        if (db_block_read(r, *row, b) && b->block % o->answer_shares == o->answer_share)
            return true;
    return false;
}

static void blocks_read(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                        size_t count)
{
    struct answer_self *self = arg;
    (void)error, (void)count;
    struct db_block b;
    self->reading = false;
    self->failed = err != ERR_OK || lease_number(self->worker->lease) == 0;
    bool whole = self->whole;
    self->whole = false;
    self->seen = 0xcbf29ce484222325u;
    for (int row = 0; !self->failed && next_block(self, results[0], &row, &b); row++)
        self->seen = digest(self->seen, &b, sizeof b);
    for (int row = 0; !self->failed && (whole || self->seen != self->known) && next_block(self, results[0], &row, &b);
         row++)
        claim(self, &b);
    claims_done(self);
}

static void look(struct answer_self *self)
{
    if (self->reading || self->under_way > 0)
        return;
    self->reading = true;
    struct pg_txn *txn = pg_txn_new(self->worker->pg, PG_ANY_LANE);
    if (txn)
        db_blocks(txn);
    pg_txn_submit(txn, blocks_read, self);
}

void answer_self_claim(struct answer_self *self)
{
    self->whole = true;
    look(self);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)loop, (void)revents;
    look(timer->data);
}

struct answer_self *answer_self_new(struct worker *worker)
{
    struct answer_self *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->worker = worker;
    ev_timer_init(&self->timer, on_timer, 0, 0);
    self->timer.data = self;
    return self;
}

void answer_self_free(struct answer_self **self)
{
    if (!*self)
        return;
    ev_timer_stop((*self)->worker->loop, &(*self)->timer);
    free(*self);
    *self = NULL;
}

bool answer_self_ready(const struct answer_self *self)
{
    return self->ready;
}
