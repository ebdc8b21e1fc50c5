/* Rows as the messages callers see.
 * Owns: nothing. May call: lib/store, generated messages. Loop rule: none, pure. Memory comes from the arena; what is
 * made may be NULL, or lack parts, when arena->failed is set afterwards. */
#ifndef MUSTER_DISPATCHER_PRESENT_H
#define MUSTER_DISPATCHER_PRESENT_H

#include "lib/base/arena.h"
#include "lib/store/db_batch.h"
#include "lib/store/db_device.h"
#include "lib/store/db_tenant.h"
#include "muster/v1/admin_service.pb-c.h"
#include "muster/v1/command_service.pb-c.h"
#include "muster/v1/device_service.pb-c.h"

/* NULL for 0. */
Google__Protobuf__Timestamp *present_time(struct arena *a, int64_t ms);
Google__Protobuf__Duration *present_duration(struct arena *a, int64_t ms);
/* `counts` by state. */
Muster__V1__Progress *present_progress(struct arena *a, const uint32_t *counts);
/* `counts` by state, or NULL to leave the progress out. The row's texts are copied. */
Muster__V1__Batch *present_batch(struct arena *a, const struct db_batch *batch, const uint32_t *counts);
Muster__V1__Device *present_device(struct arena *a, const struct db_device *device);
Muster__V1__Group *present_group(struct arena *a, const struct db_group *group);
Muster__V1__Tenant *present_tenant(struct arena *a, const struct db_tenant *tenant);
Muster__V1__ApiKey *present_key(struct arena *a, const struct db_key *key);

struct present_command {
    int32_t tenant;
    int64_t batch, created_ms; /* of the batch */
    uint32_t seq, time;        /* milliseconds since created_ms, 0: none */
    uint8_t state;
    const char *device_id;
    struct slice result; /* encoded muster.v1.CommandResult, or empty */
};
Muster__V1__CommandStatus *present_command(struct arena *a, const struct present_command *c);

#endif
