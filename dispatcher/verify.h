/* Verify: PostgreSQL, Redis and the workers compared, at any dispatcher.
 * Owns: struct verify, one run of it. May call: lib/store, dispatcher/view, request. Loop rule: non-blocking, a bounded
 * number of moves under way.
 *
 * A look goes through all there is, one part after the other (verify_workers.c, verify_batches.c, verify_keys.c), and
 * notes what differs. What was in transit does not differ at the next look: only what differs at both is told. Repairs
 * are made by who makes such changes anyway: the leader (dispatcher/repair.h) and the workers (INBOX_CHECK). A last
 * look says what is left. */
#ifndef MUSTER_DISPATCHER_VERIFY_H
#define MUSTER_DISPATCHER_VERIFY_H

#include "dispatcher/request.h"
#include "lib/store/live_look.h"
#include "muster/v1/admin_service.pb-c.h"

#define VERIFY_MOVES     32    /* of Redis under way */
#define VERIFY_FOUND_MAX 10000 /* differences of one look */

struct verify_finding {
    uint32_t kind; /* muster.v1.Difference */
    uint32_t tenant, block, worker;
    uint64_t batch;
    uint32_t count;
    char postgres[48], redis[48], workers[48];
};

struct verify_tenant {
    uint32_t id, blocks;
    char name[129];
};

struct verify_worker {
    uint16_t number;
    bool alive, ended, telling; /* telling: it has said which sessions it has */
    int64_t waiting, inbox;     /* commands in its hands; entries in its inboxes */
};

/* The devices of one block that one worker has, as it says. In a large fleet there are many of them, of few devices
 * each. */
struct verify_report {
    uint32_t tenant, block;
    uint16_t worker, count;
    bool seen;
    size_t at; /* of its slots in `slots` */
};

struct verify {
    struct request r;
    bool over; /* canceled, or a store has failed: ends with the moves under way */
    bool repair;
    char tenant[129]; /* the only one; "" for all */
    struct status failure;
    unsigned moves; /* under way */
    unsigned looks, parts_done;
    struct buf found, before; /* struct verify_finding */
    bool more;
    ev_timer wait;
    void (*after)(struct verify *v);
    uint32_t told, left;
    Muster__V1__VerifySummary summary;

    struct verify_tenant *tenants;
    size_t tenant_count;
    struct verify_worker *workers;
    size_t worker_count;
    struct verify_report *reports;
    size_t report_count;
    struct buf told_by_workers; /* struct verify_report, until all have told */
    struct buf slots;           /* u16 each, with REPORT_IDLE, in order */
    struct buf open;            /* u64: numbers of the open batches that were looked at, in order */
    int32_t *blocks;            /* of the batch that is being looked at */
    void *part;                 /* the part's own, freed with free() */
};

/* Parts; each calls verify_next when it has done. */
void verify_workers(struct verify *v);
void verify_batches(struct verify *v);
void verify_keys(struct verify *v);
void verify_presence(struct verify *v);
void verify_next(struct verify *v);
/* Goes on in `fn` then, unless the run is over. */
void verify_after(struct verify *v, double seconds, void (*fn)(struct verify *v));

/* A move comes back: false when the run is over; then `v` may be gone. */
static inline void verify_go(struct verify *v)
{
    v->moves++;
}
MUST_CHECK bool verify_back(struct verify *v, enum err err);
/* Redis is away, which is no PostgreSQL error, or memory is short. The run ends with the next verify_on. */
void verify_failed(struct verify *v, enum err err);
/* False when the run is over; then `v` may be gone. */
MUST_CHECK bool verify_on(struct verify *v);
/* There is no memory to go on with: the run is over, and `v` may be gone. */
void verify_no_memory(struct verify *v);

/* Notes a difference; returns it to be filled in further, or a place that nobody reads. */
struct verify_finding *verify_note(struct verify *v, Muster__V1__Difference kind, uint32_t tenant, uint32_t block,
                                   uint64_t batch, uint32_t worker, uint32_t count);
const struct verify_tenant *verify_tenant(const struct verify *v, uint32_t id);
const struct verify_worker *verify_worker(const struct verify *v, uint16_t number);
struct verify_report *verify_report(struct verify *v, uint32_t tenant, uint32_t block, uint16_t worker);
struct bitmap verify_report_slots(const struct verify *v, const struct verify_report *r);
/* Whether it has a session for the slot which holds nothing and expects nothing. */
bool verify_report_idle(const struct verify *v, const struct verify_report *r, unsigned slot);

/* Handlers of AdminService.Verify. */
void verify_run(struct grpc_call *call, void *service, const ProtobufCMessage *request);
void verify_cancelled(struct grpc_call *call, void *service);

#endif
