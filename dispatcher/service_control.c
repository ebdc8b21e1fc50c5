#include "dispatcher/service_control.h"

#include "dispatcher/batches.h"
#include "dispatcher/holds.h"
#include "muster/v1/admin_service.pb-c.h"
#include "muster/v1/control_service.pb-c.h"

#define METHOD(name, lower, role, handler)                                                                             \
    {                                                                                                                  \
        .path = "/muster.v1.ControlService/" name, .request = &muster__v1__##lower##_request__descriptor,              \
        .response = &muster__v1__##lower##_response__descriptor, .tag = MUSTER__V1__ROLE__ROLE_##role,                 \
        .message = handler                                                                                             \
    }

const struct grpc_method service_control_methods[] = {
    METHOD("PauseBatch", pause_batch, OPERATOR, pause_batch),
    METHOD("ResumeBatch", resume_batch, OPERATOR, resume_batch),
    METHOD("ReleaseWave", release_wave, OPERATOR, release_wave),
    METHOD("SealBatch", seal_batch, OPERATOR, seal_batch),
    METHOD("Hold", hold, OPERATOR, hold_scope),
    METHOD("Release", release, OPERATOR, release_scope),
    METHOD("ListHolds", list_holds, READ_ONLY, list_holds),
    {0},
};
