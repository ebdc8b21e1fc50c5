/* A connected device, whatever its transport: what it holds, what is in flight, what comes next.
 * Owns: struct session (embedded in the transport's own), the commands it holds. May call: batch_cache, acks, attach,
 * session_table. Loop rule: runs in callbacks of the loop; never blocks.
 *
 * Later transports are further files beside mqtt_session.c: they make a struct session, fill its first part, and call
 * session_open, session_receive, session_answer and session_close; the session calls back through struct transport. */
#ifndef MUSTER_WORKERS_SESSION_H
#define MUSTER_WORKERS_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/delivery.h"

struct batch;
struct session;
struct worker;

enum session_end {
    SESSION_TAKEN_OVER, /* the device has connected again */
    SESSION_REVOKED,    /* its token does not hold any more */
    SESSION_DRAINING,   /* this worker stops */
    SESSION_FENCED,     /* this worker has lost its lease */
};

struct transport {
    const char *name;
    /* Sends one command; batch->tail is the part of the Delivery that all devices share, `values` are the device's own,
     * packed (proto/fill.h), of a batch with such; empty: the defaults. Does not close the session. Returns NULL, or
     * why this device cannot take it (a literal): then it ends as rejected. */
    const char *(*deliver)(struct session *s, struct batch *batch, const struct command_id *id, unsigned attempt,
                           struct slice values);
    /* What was delivered is not to wait for what others get. */
    void (*hurry)(struct session *s);
    /* The outcome that came with `token` is durable: tell the device. */
    void (*acknowledged)(struct session *s, uint16_t token);
    /* Takes what the device has said that is not read yet; the session may end by it. */
    void (*hear)(struct session *s);
    /* Close the connection; the session is already out of all tables and must not be used after. */
    void (*close)(struct session *s, enum session_end why);
};

#define SESSION_HELD_MAX  256 /* commands one session holds; the rest stays in Redis until these are done */
#define SESSION_GIVEN_MAX 16  /* of them given at once when a device connects: it has all the time it needs for more */

/* A command in a session's hands. */
struct held {
    struct batch *batch;
    struct held_value *value; /* owned: the device's own values; NULL: it has none */
    uint32_t sent_us;         /* CLOCK_MONOTONIC, cut, when it was written */
    uint8_t phase;            /* enum held_phase */
    uint8_t attempts;         /* deliveries so far */
    bool recorded : 1;        /* SENT is recorded */
    bool asked : 1;           /* it was not out when Redis was asked last: that gives it again, or it is over */
    bool passed : 1; /* it was not answered in its time: it keeps nothing back any more, nor counts as in flight */
    uint8_t hours;   /* before sent_us, in which it was sent */
};
/* HELD_PUT_OFF: its "not now" is durable, nobody has it until Redis gives it once more. */
enum held_phase { HELD_WAITING, HELD_SENT, HELD_ANSWERED, HELD_PUT_OFF };

/* The device has it, or its answer is on its way to be durable. */
static inline bool held_is_out(const struct held *h)
{
    return h->phase == HELD_SENT || h->phase == HELD_ANSWERED;
}

struct session {
    /* Set by the transport before session_open. */
    const struct transport *transport;
    struct worker *worker;
    int64_t issued_ms; /* of its token */
    uint32_t tenant, seq;
    uint8_t in_flight_max;
    /* The session's own. */
    uint8_t in_flight;
    bool open : 1, receiving : 1;
    bool more : 1;    /* behind what it holds there may be more in Redis, to be fetched by attaching again, */
    bool asked : 1;   /* which is under way */
    bool put_off : 1; /* since it was attached it has said "not now" */
    bool later : 1;   /* it will be attached when that was long enough ago: once, however much it puts off */
    bool starved : 1; /* there was no memory for one since then: what is behind must not overtake it */
    /* It is being attached, and what Redis has for it is not here yet: what comes from the inbox meanwhile is held, not
     * sent, since it may be behind that in order. */
    bool settling : 1;
    uint16_t held_count, held_room;
    uint32_t generation;
    uint32_t attach_take; /* worker->takes when Redis was last asked what is open for it */
    struct held *held;    /* by rank; NULL while there are none, which is nearly always */
};

/* The device is who it says: into the table; a session it had here is taken over. False without memory. */
bool session_open(struct session *s);
/* The device can receive commands from now on (attached to this worker), or not any more. */
void session_receive(struct session *s, bool receiving);
/* It is to be attached once more; what is given otherwise until then may be behind what that gives, and waits. */
void session_again(struct session *s);
/* The connection is gone: out of the table, detached; what was in its hands goes back. Harmless when it was not open.
 */
void session_close(struct session *s);

/* The worker has another number, the connection stands: forgets what it has not sent; being attached anew gives what
 * there is. What is sent stays in flight: the device may be at it. */
void session_forget(struct session *s);

/* How many commands Redis is to give it. */
unsigned session_wants(const struct session *s);
/* Redis is asked for them now. */
void session_asks(struct session *s);
/* It is attached, `given` commands of those it has in Redis come now; `wanted` was the limit. */
void session_attached(struct session *s, size_t given, unsigned wanted);
/* All that came with it is in its hands: goes on to send. */
void session_settled(struct session *s);
/* Puts a command into its hands, unless it has it; takes a reference of the batch, copies the device's own values
 * (empty: it has none). Sends what may be sent. `state`: its byte in Redis, before it was given. */
void session_hold(struct session *s, struct batch *batch, uint8_t state, struct slice values);
/* The same with a command that was just accepted, unless others in Redis come before it. */
void session_offer(struct session *s, struct batch *batch, struct slice values);
/* The device's acknowledgement. When it is taken `transport->acknowledged` comes with `token` once it is durable; else
 * nothing has happened: the id is not this device's, or there is no memory for what it says. */
enum session_answered { SESSION_TAKEN, SESSION_NOT_ITS, SESSION_NO_MEMORY };
MUST_CHECK enum session_answered session_answer(struct session *s, const struct acknowledgement *ack, uint16_t token);
/* An outcome of this session is durable. Called by acks. */
void session_durable(struct session *s, uint64_t batch, uint8_t event, uint16_t token);
/* To be called twice an hour or more often, and where something may be waiting for a command that takes too long. */
void session_look(struct session *s, int64_t now_us);
/* Sends what the in-flight limit lets through; hands back what is canceled or expired. */
void session_pump(struct session *s);
/* A cancel of the batch, or a hold: what is unsent is handed back, what is sent is recorded as sent. */
void session_take_back(struct session *s, const struct batch *batch);
/* The tenant's gate is closed: forgets what is unsent, of all batches, and records as sent what is sent. */
void session_forget_unsent(struct session *s);
/* Records SENT of a command that has stayed unanswered, if it is still so. */
void session_record_sent(struct session *s, uint64_t batch);

#endif
