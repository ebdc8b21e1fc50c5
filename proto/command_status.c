#include "proto/command_status.h"

#include <string.h>

#include "proto/varint.h"

/* Numbers of the fields in muster/v1/command_service.proto, and google/protobuf/timestamp.proto. */
enum { COMMAND_ID = 1, BATCH_ID, DEVICE_ID, STATE, ATTEMPTS, UPDATED_AT, RESULT };
enum { SECONDS = 1, NANOS };

#define VARINT(field) ((uint8_t)((field) << 3 | WIRE_VARINT))
#define BYTES(field)  ((uint8_t)((field) << 3 | WIRE_BYTES))

/* All there is but device id, result and what is encoded already, with the lengths of these: an upper bound. */
#define FIXED_MAX 128

static uint8_t *put_number(uint8_t *p, unsigned field, uint64_t v)
{
    if (!v)
        return p;
    *p++ = VARINT(field);
    return varint_write(p, v);
}

static uint8_t *put_bytes(uint8_t *p, unsigned field, struct slice s)
{
    *p++ = BYTES(field);
    p = varint_write(p, s.len);
    memcpy(p, s.data, s.len);
    return p + s.len;
}

static size_t number_size(uint64_t v)
{
    return v ? 1 + varint_size(v) : 0;
}

static size_t bytes_size(size_t len)
{
    return 1 + varint_size(len) + len;
}

void command_status_put(struct buf *out, unsigned field, const struct command_status *c)
{
    uint64_t seconds = (uint64_t)(c->updated_ms / 1000), nanos = (uint64_t)(c->updated_ms % 1000) * 1000000;
    size_t time = number_size(seconds) + number_size(nanos);
    size_t size = bytes_size(COMMAND_ID_TEXT) + number_size(c->id.batch) + number_size(c->state) +
                  number_size(c->attempts) + (c->device_id.len ? bytes_size(c->device_id.len) : 0) +
                  (c->updated_ms ? bytes_size(time) : 0) + (c->result.len ? bytes_size(c->result.len) : 0) +
                  c->more.len;
    uint8_t *start = buf_reserve(out, FIXED_MAX + c->device_id.len + c->result.len + c->more.len), *p = start;
    if (!p)
        return;
    *p++ = BYTES(field);
    p = varint_write(p, size);
    *p++ = BYTES(COMMAND_ID);
    *p++ = COMMAND_ID_TEXT;
    command_id_write((char *)p, &c->id);
    p = put_number(p + COMMAND_ID_TEXT, BATCH_ID, c->id.batch);
    if (c->device_id.len)
        p = put_bytes(p, DEVICE_ID, c->device_id);
    p = put_number(p, STATE, c->state);
    p = put_number(p, ATTEMPTS, c->attempts);
    if (c->updated_ms) {
        *p++ = BYTES(UPDATED_AT);
        p = varint_write(p, time);
        p = put_number(put_number(p, SECONDS, seconds), NANOS, nanos);
    }
    if (c->result.len)
        p = put_bytes(p, RESULT, c->result);
    if (c->more.len)
        memcpy(p, c->more.data, c->more.len);
    p += c->more.len;
    buf_commit(out, (size_t)(p - start));
}
