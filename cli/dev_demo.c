#include <stdio.h>

#include "cli/batch_watch.h"
#include "cli/dev.h"

static int64_t submit(struct session *s)
{
    Muster__V1__LockCommand lock = MUSTER__V1__LOCK_COMMAND__INIT;
    Muster__V1__Command command = MUSTER__V1__COMMAND__INIT;
    Muster__V1__Target target = MUSTER__V1__TARGET__INIT;
    Muster__V1__SubmitBatchRequest request = MUSTER__V1__SUBMIT_BATCH_REQUEST__INIT;
    char id[64];

    /* One of its own for each run, so that the same data can show it again. */
    snprintf(id, sizeof id, "demo-%.0f", ev_time() * 1000);
    lock.message = (char *)"This device has been reported lost.";
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
    command.lock = &lock;
    target.kind_case = MUSTER__V1__TARGET__KIND_ALL;
    target.all = true;
    request.request_id = id;
    request.description = (char *)"demo";
    request.command = &command;
    request.target = &target;
    Muster__V1__SubmitBatchResponse *answer = (Muster__V1__SubmitBatchResponse *)session_call(
        s, "CommandService/SubmitBatch", &request.base, &muster__v1__submit_batch_response__descriptor);
    int64_t batch = answer && answer->batch ? answer->batch->id : 0;
    session_free_message((ProtobufCMessage *)answer);
    return batch;
}

int dev_demo_run(struct dev *dev)
{
    struct watch_result result;
    struct session s;

    if (session_open(&s, &dev->common) != ERR_OK)
        return EXIT_RPC_FAIL;
    s.stop = &dev->group.broken;
    printf("\nLocking every device.\n\n");
    fflush(stdout);
    int64_t batch = submit(&s);
    int status = batch ? batch_watch_run(&s, batch, &result) : EXIT_RPC_FAIL;
    if (status != EXIT_RPC_FAIL)
        batch_watch_summary(&result);
    session_close(&s);
    return status;
}
