/* What the witnesses of a round say: the callers' journals, the devices' record, gRPC and PostgreSQL.
 * Owns: struct evidence and its lists, the forms of journal and record. May call: proto/command_id, lib/base.
 * Loop rule: reading files blocks; for tools only. */
#ifndef MUSTER_CLI_CHAOS_EVIDENCE_H
#define MUSTER_CLI_CHAOS_EVIDENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define REQUEST_ID_BYTES 48

/* A caller's request and what it was told; from a journal. */
struct request {
    char id[REQUEST_ID_BYTES];
    int tenant;     /* of the run: 0, 1 … */
    uint64_t batch; /* 0: never answered with one */
    uint32_t devices;
    int64_t expires_ms;
    bool asked_for_cancel;
    int64_t canceled_ms; /* when the caller saw that the cancel is confirmed; 0: never */
    char refused[32];    /* status code that ended it, "" when none did */
    bool twice;          /* answered with two batches: never right */
    uint64_t foreign;    /* a batch of another tenant that it was shown; 0: none */
};

/* A batch as PostgreSQL has it. */
struct stored_batch {
    uint64_t id;
    uint32_t tenant; /* number in PostgreSQL */
    char request[REQUEST_ID_BYTES];
    uint32_t devices;
    int64_t expires_ms, canceled_ms, closed_ms;
};

/* A command as Muster tells of it. */
struct told_command {
    uint64_t batch;
    uint32_t tenant, seq;
    uint8_t stored; /* enum command_state, by SQL; 0: not there */
    uint8_t told;   /* the same, by gRPC */
};

/* A command as a device has it; from the fleet's record. */
struct witnessed {
    uint64_t batch; /* of the command id */
    uint32_t tenant, seq;
    uint32_t by_tenant, by_seq; /* the device that says so; by_tenant 0: nobody knows it */
    uint16_t received, executed;
    uint8_t outcome; /* enum command_state: SUCCEEDED, FAILED, REJECTED, QUEUED for "not now"; 0: none yet */
    bool acked;
    int64_t received_ms, executed_ms, acked_ms; /* the latest delivery and execution, the first PUBACK; 0: never */
};

struct known_device {
    char id[24];
    uint32_t tenant, seq;
};

/* From … to, in milliseconds since 1970. */
struct slow_time {
    int64_t from_ms, to_ms;
};

struct evidence {
    uint32_t tenants[8]; /* number in PostgreSQL of tenant 0, 1 … of the run */
    struct request *requests;
    struct stored_batch *batches; /* by id */
    struct told_command *commands;
    struct witnessed *witnessed;
    struct known_device *devices;     /* by id */
    struct slow_time *slow, *stepped; /* when the network was slow; when one process's clock was wrong */
    struct slow_time *blind;          /* when Redis and a worker forgot at once what had been sent */
    size_t request_count, batch_count, command_count, witnessed_count, device_count, slow_count, stepped_count,
        blind_count;
    size_t request_room, batch_room, command_room, witnessed_room, device_room, slow_room, stepped_room, blind_room;
    uint64_t first_batch; /* batches below it were looked at in earlier rounds */
};

void evidence_free(struct evidence *e);
/* Each returns a zeroed new entry, valid until the next; aborts without memory. */
struct request *evidence_request(struct evidence *e);
struct stored_batch *evidence_batch(struct evidence *e);
struct told_command *evidence_command(struct evidence *e);
struct witnessed *evidence_witnessed(struct evidence *e);
struct known_device *evidence_device(struct evidence *e);
struct slow_time *evidence_slow(struct evidence *e);
struct slow_time *evidence_stepped(struct evidence *e);
struct slow_time *evidence_blind(struct evidence *e);

/* A journal is lines of a letter and words:
 *   S <request> <expires ms>              asked for the first time
 *   A <request> <batch> <devices>         answered
 *   R <request> <status code>             refused for good
 *   C <request>                           cancel asked for
 *   K <request> <ms>                      the cancel is known to be confirmed
 *   F <request> <batch>                   a batch of another tenant was shown
 *   E                                     the caller has ended in order
 * Reads one of tenant `tenant`. False, with one line on stderr, when it is not there or not whole. */
MUST_CHECK bool evidence_read_journal(struct evidence *e, const char *path, int tenant);
/* Reads a fleet's record (bench/fleet/record.h); devices must be known before. False with one line. */
MUST_CHECK bool evidence_read_record(struct evidence *e, const char *path);

/* Puts every list into the order that verdict_judge wants. */
void evidence_sort(struct evidence *e);
/* The request of an id, the batch of an id; NULL when there is none. Only once sorted. */
const struct request *evidence_find_request(const struct evidence *e, const char *id);
const struct stored_batch *evidence_find_batch(const struct evidence *e, uint64_t id);

#endif
