/* The oracle: whether what the witnesses of a round say keeps DESIGN's promises.
 * Owns: the names of broken promises, the comparisons. May call: cli/chaos/evidence, lib/store/state. Loop rule: none,
 * pure. */
#ifndef MUSTER_CLI_CHAOS_VERDICT_H
#define MUSTER_CLI_CHAOS_VERDICT_H

#include "cli/chaos/evidence.h"

enum breach {
    BREACH_ACCEPTED_LOST,     /* an answered batch is not in PostgreSQL, or another than was answered */
    BREACH_ACCEPTED_TWICE,    /* one request made two batches */
    BREACH_REFUSED,           /* a proper request, or its repetition, was refused for good */
    BREACH_NOT_TERMINAL,      /* a command has not ended */
    BREACH_WITNESSES_DIFFER,  /* gRPC and SQL tell of different states, or one of them lacks a command */
    BREACH_EXECUTED_TWICE,    /* a device that deduplicates executed a command more than once */
    BREACH_NOT_EXECUTED,      /* told as SUCCEEDED or FAILED, and the device did not execute it so */
    BREACH_OUTCOME_DIFFERS,   /* told as REJECTED, and the device said something else */
    BREACH_NOT_ACCEPTED,      /* a device got a command that no accepted batch has */
    BREACH_SENT_AFTER_CANCEL, /* it came to a device after its cancel was confirmed */
    BREACH_EXECUTED_UNSENT,   /* told as CANCELED or EXPIRED, so never sent, and the device executed it */
    BREACH_SENT_AFTER_EXPIRY, /* it came to a device after its expiry had passed */
    BREACH_ACK_LOST,          /* an acknowledgement got its PUBACK and is not what the command ended with */
    BREACH_FOREIGN_TENANT,    /* something of one tenant was seen by another */
    BREACH_REDIS_NOT_EMPTY,   /* Redis holds something of a closed batch */
    BREACH_MEMORY,            /* a process outgrew its bound */
    BREACH_HANG,              /* a batch was not closed, or the installation did not recover, in time */
    BREACH_PROCESS,           /* a process ended that nobody had ended */
    BREACHES
};

const char *breach_name(enum breach breach);

#define COMPLAINTS_MAX  12 /* kept of each breach; the others are counted */
#define COMPLAINT_BYTES 240

struct complaints {
    uint64_t count;
    char text[COMPLAINTS_MAX][COMPLAINT_BYTES];
};

struct verdict {
    struct complaints complaints[BREACHES];
    /* What was looked at. */
    uint64_t batches, commands, executed, repeated, canceled_batches, states[16];
    /* Told as CANCELED or EXPIRED and sent all the same, when Redis and a worker forgot at once: no breach, but told.
     */
    uint64_t forgotten;
};

/* Adds a complaint. */
void verdict_complain(struct verdict *v, enum breach breach, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool verdict_is_good(const struct verdict *v);
/* Adds what `more` has found and counted. */
void verdict_add(struct verdict *v, const struct verdict *more);

/* A command on its way when a cancel is confirmed or a batch expires comes to its device this much later at most, by
 * what the kernel's buffers and a busy machine take; while the network is slow, as much more as it is slow. A worker
 * that was stopped and goes on is found out all the same: it was stopped for longer. */
#define WAY_MS      1000
#define SLOW_WAY_MS 5000

/* Two processes' ideas of the millisecond it is. */
#define CLOCKS_MS 3

/* Compares everything; the evidence must be sorted and the installation at rest. */
void verdict_judge(const struct evidence *e, struct verdict *v);

#endif
