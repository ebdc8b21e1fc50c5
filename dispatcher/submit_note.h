/* What the audit says of a batch beside its number: command, target, request id.
 * Owns: nothing. May call: generated messages. Loop rule: none, pure. */
#ifndef MUSTER_DISPATCHER_SUBMIT_NOTE_H
#define MUSTER_DISPATCHER_SUBMIT_NOTE_H

#include "muster/v1/command_service.pb-c.h"

#define SUBMIT_NOTE_MAX 512 /* bytes, with the final NUL */

/* "lock; request r-17; PLATFORM_IOS, less group vip": long lists are told by their beginning, values not at all. */
void submit_note(char out[SUBMIT_NOTE_MAX], const Muster__V1__SubmitBatchRequest *in);

#endif
