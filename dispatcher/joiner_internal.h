/* What looking who is meant (joiner.c) and writing down who joins (joiner_write.c) share; for no one else.
 * Owns: struct growing, struct join_look. May call: as joiner.h. Loop rule: as joiner.h. */
#ifndef MUSTER_DISPATCHER_JOINER_INTERNAL_H
#define MUSTER_DISPATCHER_JOINER_INTERNAL_H

#include "dispatcher/joiner.h"
#include "dispatcher/resolve.h"
#include "dispatcher/target_set.h"

/* One dynamic batch that grows. */
struct growing {
    struct list link;
    struct reign *reign;
    struct open_batch *batch;
    Muster__V1__Target *target; /* NULL: not read yet */
    struct target_set joined, barred;
    struct target_set taken;  /* for whom it has its key, who has not joined: they do before others, sealed or not */
    struct join_write *waits; /* owned: for older batches to end for those who are to join */
    bool reading, writing;
    bool submitting;                /* of the writing the last step */
    bool over;                      /* gone while it was read */
    bool end;                       /* nobody joins any more but who is in `taken`, or is being written down */
    bool wanted;                    /* something has hinted at it */
    bool routes;                    /* who has joined is to be routed */
    bool left_out;                  /* somebody could not join, and may be able to soon */
    int64_t earliest_us, latest_us; /* of the next look */
};

/* A look: who is meant now, and of them those who are new. */
struct join_look {
    struct reign *reign;
    struct growing *of;         /* NULL: gone meanwhile, */
    Muster__V1__Target *target; /* and has left its own here */
    struct resolution res;
    int64_t began_us, began_ms;
    bool resolved;
};

/* Neither sealed in the picture, nor being canceled, nor over. */
bool growing_goes_on(const struct growing *g);
/* What PostgreSQL says of it is asked for anew. */
void growing_read_again(struct growing *g);
/* Nobody joins any more; with a key, PostgreSQL has to say first that there is nobody whom it was taken for. */
void growing_seal(struct growing *g);
/* A block of those who are meant, less those who are there and those who may not join now. */
struct bitmap growing_new(struct growing *g, const struct target_block *meant);
/* Its batch has not gone. */
const struct target_set *join_look_meant(const struct join_look *look);

/* Writes down who is new; the batch has not gone. */
void join_write_new(struct reign *r, const struct join_look *look);
/* To be called at each tick for one with `waits`: goes on when older batches have ended for those who are to join, or
 * the batch is over. */
void join_write_wait_on(struct growing *g);

#endif
