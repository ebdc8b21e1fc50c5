/* JSON from devices and the command line. The first byte chooses the message. What is accepted must be written, read
 * again, and written alike. */
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "muster/v1/command_service.pb-c.h"
#include "muster/v1/delivery.pb-c.h"
#include "proto/json.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const kinds[] = {
        &muster__v1__submit_batch_request__descriptor,   &muster__v1__device_information__descriptor,
        &google__protobuf__descriptor_proto__descriptor, &google__protobuf__timestamp__descriptor,
        &google__protobuf__duration__descriptor,
    };
    char error[128];
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *kind = kinds[data[0] % (sizeof kinds / sizeof *kinds)];
    ProtobufCMessage *m = json_to_message(kind, (const char *)data + 1, size - 1, error, sizeof error);
    if (!m) {
        check(memchr(error, 0, sizeof error) != NULL && error[0]);
        return 0;
    }
    char *text = json_from_message(m, false);
    protobuf_c_message_free_unpacked(m, NULL);
    check(text != NULL);
    m = json_to_message(kind, text, strlen(text), error, sizeof error);
    check(m != NULL);
    char *again = json_from_message(m, true);
    check(again != NULL);
    free(again);
    again = json_from_message(m, false);
    check(again && strcmp(text, again) == 0);
    free(again);
    free(text);
    protobuf_c_message_free_unpacked(m, NULL);
    return 0;
}
