/* A random batch for the load: whom it addresses, what it says, how it is to end.
 * Owns: struct load_batch. May call: the contract's messages. Loop rule: none, pure. */
#ifndef MUSTER_CLI_CHAOS_LOAD_BATCH_H
#define MUSTER_CLI_CHAOS_LOAD_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "muster/v1/command_service.pb-c.h"

#define LOAD_IDS_MAX 40

struct load_batch {
    Muster__V1__SubmitBatchRequest request; /* points into this struct */
    Muster__V1__Command command;
    Muster__V1__Target target;
    Muster__V1__DeviceIds devices;
    Muster__V1__GroupNames groups;
    Google__Protobuf__Timestamp expires_at;
    union {
        Muster__V1__LockCommand lock;
        Muster__V1__ConfigureCommand configure;
        Muster__V1__QueryInformationCommand query;
        Muster__V1__BackUpCommand back_up;
        Muster__V1__RestartCommand restart;
        Muster__V1__CustomCommand custom;
    } kind;
    char request_id[48], group[24], ids[LOAD_IDS_MAX][24];
    char *id_list[LOAD_IDS_MAX], *group_list[1];
    bool to_cancel; /* the caller is to cancel it after cancel_ms */
    int64_t cancel_ms, expires_ms;
};

/* Who the batches are for. */
struct load_tenant {
    int number;         /* of the run, part of request ids */
    const char *prefix; /* of device ids */
    uint32_t devices;
    int64_t patience_ms; /* how long most batches have */
};

/* Draws batch number `n` of a round; `random` is the sequence's state. */
void load_batch_draw(struct load_batch *b, const struct load_tenant *tenant, unsigned round, uint64_t n,
                     uint64_t *random, int64_t now_ms);

#endif
