/* A submit, from its request to its answer: what the steps (submit.c) and the answers (submit_answer.c) share.
 * Owns: struct submit. May call: the headers below. Loop rule: non-blocking. */
#ifndef MUSTER_DISPATCHER_SUBMIT_INTERNAL_H
#define MUSTER_DISPATCHER_SUBMIT_INTERNAL_H

#include "dispatcher/accept.h"
#include "dispatcher/batch_values.h"
#include "dispatcher/mailbox_check.h"
#include "dispatcher/request.h"
#include "dispatcher/resolve.h"
#include "dispatcher/steer_check.h"
#include "dispatcher/submit_note.h"
#include "dispatcher/target_set.h"
#include "lib/store/db_guard.h"
#include "lib/store/db_quota.h"
#include "muster/v1/command_service.pb-c.h"

struct submit {
    struct request r;
    const Muster__V1__SubmitBatchRequest *in;
    int64_t began_us;
    const Muster__V1__Target *target; /* the request's, or the devices that have values */
    struct resolution res;
    struct batch_values values;
    struct accept_job job;
    struct {
        int32_t block;
        int16_t first;
        uint8_t bit;
        struct slice target;
    } place;                         /* of the one device addressed by its id */
    struct db_guard guard;           /* where the tenant's policy guards the command */
    char digest[TARGET_DIGEST_TEXT]; /* of the devices addressed; "": not known */
    struct db_quota_refusal beyond;  /* the tenant's quota */
    char note[SUBMIT_NOTE_MAX];      /* for the audit */
    struct steer_check steer;
    struct mailbox_check full;
    struct status refusal; /* what is answered unless the request was accepted before */
    Muster__V1__SubmitBatchResponse replayed;
};

/* --- submit_answer.c ---------------------------------------------------------------------------------------------- */

/* Each of these ends the request. */
void submit_no_memory(struct submit *s);
void submit_answer_accepted(struct submit *s);
/* A batch that was accepted and is held: told with its approval. */
void submit_answer_held(struct submit *s);
void submit_answer_validated(struct submit *s, bool approval_needed);
/* The first answer again, from what the first request left behind: a row of db_batch_find. */
void submit_answer_replayed(struct submit *s, const struct pg_result *result);

#endif
