/* muster batch cancel, pause, resume, release, seal. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/show.h"
#include "cli/target.h"
#include "muster/v1/control_service.pb-c.h"

static void show_canceled(const ProtobufCMessage *answer)
{
    const Muster__V1__CancelBatchResponse *r = (const Muster__V1__CancelBatchResponse *)answer;

    if (r->devices)
        printf("canceled for %" PRIu32 " of its devices, where it is not sent yet\n", r->devices);
    show_batch(r->batch);
}

int batch_cancel(struct invocation *inv)
{
    struct target_flags target = {0};
    const struct arg_flag flags[] = {TARGET_FLAGS(target), {0}};
    struct args a = {
        .positional = "BATCH",
        .min = 1,
        .max = 1,
        .flags = flags,
        .notes = "Without any of these: for all its devices, and the batch ends. With --exclude-... alone: for all "
                 "its devices\nbut those; who joins a dynamic batch later still gets it, unless it is sealed."};
    Muster__V1__CancelBatchRequest request = MUSTER__V1__CANCEL_BATCH_REQUEST__INIT;

    args_parse(inv, &a);
    request.batch_id = args_number(inv, "batch", a.words.items[0]);
    if (target_ways(&target) > 1)
        args_refuse(inv, "takes at most one of --device or --devices-file, --group, --platform, --filter");
    if (!target_ways(&target)) /* of all its devices: what is excluded must not be canceled with the batch */
        target.all = target_given(&target);
    if (target_given(&target))
        request.target = target_from_flags(inv, &target);
    return call_once(inv, "CommandService/CancelBatch", &request.base, &muster__v1__cancel_batch_response__descriptor,
                     show_canceled);
}

static void show_paused(const ProtobufCMessage *answer)
{
    show_batch(((const Muster__V1__PauseBatchResponse *)answer)->batch);
}

int batch_pause(struct invocation *inv)
{
    const char *reason = "";
    const struct arg_flag flags[] = {
        {"reason", ARG_TEXT, &reason, "TEXT", "why, for those who look at it", 0, 0},
        {0},
    };
    struct args a = {.positional = "BATCH", .min = 1, .max = 1, .flags = flags};
    Muster__V1__PauseBatchRequest request = MUSTER__V1__PAUSE_BATCH_REQUEST__INIT;

    args_parse(inv, &a);
    request.batch_id = args_number(inv, "batch", a.words.items[0]);
    request.reason = (char *)reason;
    return call_once(inv, "ControlService/PauseBatch", &request.base, &muster__v1__pause_batch_response__descriptor,
                     show_paused);
}

static void show_released(const ProtobufCMessage *answer)
{
    show_batch(((const Muster__V1__ReleaseWaveResponse *)answer)->batch);
}

int batch_release(struct invocation *inv)
{
    int64_t wave = 0;
    const struct arg_flag flags[] = {
        {"wave", ARG_INT, &wave, "N", "this one; nothing is done when it is out already (default the next one)", 1,
         INT32_MAX},
        {0},
    };
    struct args a = {.positional = "BATCH", .min = 1, .max = 1, .flags = flags};
    Muster__V1__ReleaseWaveRequest request = MUSTER__V1__RELEASE_WAVE_REQUEST__INIT;

    args_parse(inv, &a);
    request.wave = (uint32_t)wave;
    request.batch_id = args_number(inv, "batch", a.words.items[0]);
    return call_once(inv, "ControlService/ReleaseWave", &request.base, &muster__v1__release_wave_response__descriptor,
                     show_released);
}

static void show_sealed(const ProtobufCMessage *answer)
{
    show_batch(((const Muster__V1__SealBatchResponse *)answer)->batch);
}

int batch_seal(struct invocation *inv)
{
    struct args a = {.positional = "BATCH", .min = 1, .max = 1};
    Muster__V1__SealBatchRequest request = MUSTER__V1__SEAL_BATCH_REQUEST__INIT;

    args_parse(inv, &a);
    request.batch_id = args_number(inv, "batch", a.words.items[0]);
    return call_once(inv, "ControlService/SealBatch", &request.base, &muster__v1__seal_batch_response__descriptor,
                     show_sealed);
}

static void show_resumed(const ProtobufCMessage *answer)
{
    show_batch(((const Muster__V1__ResumeBatchResponse *)answer)->batch);
}

int batch_resume(struct invocation *inv)
{
    const char *reason = "";
    const struct arg_flag flags[] = {
        {"reason", ARG_TEXT, &reason, "TEXT", "why, for those who look at it", 0, 0},
        {0},
    };
    struct args a = {.positional = "BATCH", .min = 1, .max = 1, .flags = flags};
    Muster__V1__ResumeBatchRequest request = MUSTER__V1__RESUME_BATCH_REQUEST__INIT;

    args_parse(inv, &a);
    request.batch_id = args_number(inv, "batch", a.words.items[0]);
    request.reason = (char *)reason;
    return call_once(inv, "ControlService/ResumeBatch", &request.base, &muster__v1__resume_batch_response__descriptor,
                     show_resumed);
}
