/* What a request to submit a batch asks for, as a hash: the same request id stands for the same content.
 * Owns: the hash's making. May call: dispatcher/request, batch_values. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_SUBMIT_HASH_H
#define MUSTER_DISPATCHER_SUBMIT_HASH_H

#include "dispatcher/request.h"
#include "muster/v1/command_service.pb-c.h"

#define SUBMIT_HASH 32 /* bytes */

/* The hash of a request that is valid; of no use when r->arena.failed is set afterwards. */
void submit_hash(struct request *r, const Muster__V1__SubmitBatchRequest *in, uint8_t hash[SUBMIT_HASH]);

#endif
