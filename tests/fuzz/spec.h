/* What Redis holds of a batch, with choices drawn from the input.
 * Owns: nothing. May call: generated messages, tests/fuzz/device. Loop rule: none. */
#ifndef MUSTER_TESTS_FUZZ_SPEC_H
#define MUSTER_TESTS_FUZZ_SPEC_H

#include "muster/internal/v1/batch.pb-c.h"
#include "tests/fuzz/device.h"

#define SPEC_MAX 256

/* Encodes the BatchSpec of a batch; its size. The second batch has a value per device. */
static inline size_t put_spec(uint8_t out[SPEC_MAX], uint64_t batch, uint8_t how, int64_t now_ms)
{
    Muster__Internal__V1__BatchSpec spec = MUSTER__INTERNAL__V1__BATCH_SPEC__INIT;
    spec.tenant = DEVICE_TENANT;
    spec.batch_id = (int64_t)batch;
    spec.priority = 1 + how % 3;
    spec.created_ms = how & 2 ? DEVICE_BEGIN_MS : INT64_MIN + how;
    spec.expires_ms = now_ms + (how & 4 ? 100 : 1000000);
    spec.canceled = (how & 8) != 0;
    spec.command = (ProtobufCBinaryData){(size_t)(how & 16 ? 4 : 2), (uint8_t *)(uintptr_t) "\x0a\x02\x0a\x00"};
    spec.variables = (char *[]){"a"};
    spec.n_variables = batch == 2;
    if (spec.n_variables)
        spec.command = (ProtobufCBinaryData){9, (uint8_t *)(uintptr_t) "\x0a\x07\x1a\x05{{a}}"};
    spec.default_values = (ProtobufCBinaryData){how & 16 ? 2 : 0, (uint8_t *)(uintptr_t) "\1d"};
    return muster__internal__v1__batch_spec__pack(&spec, out);
}

#endif
