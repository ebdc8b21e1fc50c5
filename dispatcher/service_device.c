#include "dispatcher/service_device.h"

#include "dispatcher/commands.h"
#include "dispatcher/devices.h"
#include "dispatcher/groups.h"
#include "dispatcher/import.h"
#include "muster/v1/admin_service.pb-c.h"
#include "muster/v1/device_service.pb-c.h"

#define METHOD(name, lower, role, handler)                                                                             \
    {                                                                                                                  \
        .path = "/muster.v1.DeviceService/" name, .request = &muster__v1__##lower##_request__descriptor,               \
        .response = &muster__v1__##lower##_response__descriptor, .tag = MUSTER__V1__ROLE__ROLE_##role,                 \
        .message = handler                                                                                             \
    }

const struct grpc_method service_device_methods[] = {
    {.path = "/muster.v1.DeviceService/ImportDevices",
     .request = &muster__v1__import_devices_request__descriptor,
     .response = &muster__v1__import_devices_response__descriptor,
     .tag = MUSTER__V1__ROLE__ROLE_OPERATOR,
     .client_streaming = true,
     .message = import_message,
     .end = import_end,
     .cancelled = import_cancelled},
    METHOD("GetDevice", get_device, READ_ONLY, get_device),
    METHOD("ListDevices", list_devices, READ_ONLY, list_devices),
    METHOD("DeleteDevice", delete_device, OPERATOR, delete_device),
    METHOD("ListDeviceCommands", list_device_commands, READ_ONLY, list_device_commands),
    METHOD("IssueCredentials", issue_credentials, OPERATOR, issue_credentials),
    METHOD("CreateGroup", create_group, OPERATOR, create_group),
    METHOD("UpdateGroup", update_group, OPERATOR, update_group),
    METHOD("ListGroups", list_groups, READ_ONLY, list_groups),
    METHOD("DeleteGroup", delete_group, OPERATOR, delete_group),
    {0},
};
