#include "dispatcher/service_command.h"

#include "dispatcher/batches.h"
#include "dispatcher/commands.h"
#include "dispatcher/export.h"
#include "dispatcher/guard.h"
#include "dispatcher/submit.h"
#include "dispatcher/watch.h"
#include "muster/v1/admin_service.pb-c.h"
#include "muster/v1/command_service.pb-c.h"

#define METHOD(name, lower, role, handler)                                                                             \
    {                                                                                                                  \
        .path = "/muster.v1.CommandService/" name, .request = &muster__v1__##lower##_request__descriptor,              \
        .response = &muster__v1__##lower##_response__descriptor, .tag = MUSTER__V1__ROLE__ROLE_##role,                 \
        .message = handler                                                                                             \
    }

const struct grpc_method service_command_methods[] = {
    METHOD("SubmitBatch", submit_batch, OPERATOR, submit_batch),
    METHOD("GetBatch", get_batch, READ_ONLY, get_batch),
    METHOD("ListBatches", list_batches, READ_ONLY, list_batches),
    {.path = "/muster.v1.CommandService/WatchBatch",
     .request = &muster__v1__watch_batch_request__descriptor,
     .response = &muster__v1__watch_batch_response__descriptor,
     .tag = MUSTER__V1__ROLE__ROLE_READ_ONLY,
     .server_streaming = true,
     .message = watch_batch,
     .cancelled = watch_cancelled},
    METHOD("CancelBatch", cancel_batch, OPERATOR, cancel_batch),
    METHOD("ApproveBatch", approve_batch, APPROVER, approve_batch),
    METHOD("RejectBatch", reject_batch, APPROVER, reject_batch),
    METHOD("ListCommands", list_commands, READ_ONLY, list_commands),
    {.path = "/muster.v1.CommandService/ExportCommands",
     .request = &muster__v1__export_commands_request__descriptor,
     .response = &muster__v1__export_commands_response__descriptor,
     .tag = MUSTER__V1__ROLE__ROLE_READ_ONLY,
     .server_streaming = true,
     .message = export_commands,
     .cancelled = export_cancelled},
    METHOD("GetCommand", get_command, READ_ONLY, get_command),
    {0},
};
