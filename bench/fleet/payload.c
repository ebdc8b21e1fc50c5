#include "bench/fleet/payload.h"

#include <string.h>

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* Field numbers, from delivery.proto and command.proto. */
enum { DELIVERY_ID = 1, DELIVERY_ATTEMPT = 2, DELIVERY_EXPIRES = 3, DELIVERY_COMMAND = 4 };
enum { COMMAND_QUERY = 6, COMMAND_BACK_UP = 9 };
enum { ACK_ID = 1, ACK_OUTCOME = 2, ACK_CODE = 3, ACK_TEXT = 4, ACK_INFORMATION = 5, ACK_BACKUP = 6, ACK_PAYLOAD = 7 };
enum { INFO_OS_VERSION = 1, INFO_MODEL = 2, INFO_SERIAL = 3, INFO_ITEMS = 4 };

struct field {
    uint32_t number;
    uint64_t value;     /* of a varint */
    struct slice bytes; /* of a length-delimited field */
};

static bool read_varint(struct slice *in, uint64_t *out)
{
    uint64_t v = 0;

    for (size_t i = 0; i < in->len && i < 10; i++) {
        v |= (uint64_t)(in->data[i] & 0x7f) << (7 * i);
        if (!(in->data[i] & 0x80)) {
            *in = (struct slice){in->data + i + 1, in->len - i - 1};
            *out = v;
            return true;
        }
    }
    return false;
}

/* Takes one field from the front. False on bad content; call only while bytes are left. */
static bool read_field(struct slice *in, struct field *f)
{
    uint64_t key, len;
    struct slice skipped;

    if (!read_varint(in, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX)
        return false;
    *f = (struct field){.number = (uint32_t)(key >> 3)};
    switch ((enum wire)(key & 7)) {
    case WIRE_VARINT:
        return read_varint(in, &f->value);
    case WIRE_BYTES:
        return read_varint(in, &len) && len <= in->len && slice_bytes(in, (size_t)len, &f->bytes);
    case WIRE_FIXED64:
        return slice_bytes(in, 8, &skipped);
    case WIRE_FIXED32:
        return slice_bytes(in, 4, &skipped);
    }
    return false;
}

static bool read_expiry(struct slice in, int64_t *seconds)
{
    struct field f;

    while (in.len > 0) {
        if (!read_field(&in, &f))
            return false;
        if (f.number == 1)
            *seconds = (int64_t)f.value;
    }
    return true;
}

static bool read_command(struct slice in, enum wants *wants)
{
    struct field f;

    while (in.len > 0) {
        if (!read_field(&in, &f))
            return false;
        if (f.number == COMMAND_QUERY)
            *wants = WANTS_INFORMATION;
        else if (f.number == COMMAND_BACK_UP)
            *wants = WANTS_BACKUP_REFERENCE;
    }
    return true;
}

bool delivery_read(struct slice in, struct delivery *out)
{
    bool has_id = false;
    struct field f;

    *out = (struct delivery){0};
    while (in.len > 0) {
        if (!read_field(&in, &f))
            return false;
        if (f.number == DELIVERY_ID)
            has_id = uuid_parse(f.bytes.data, f.bytes.len, out->id);
        else if (f.number == DELIVERY_ATTEMPT)
            out->attempt = (uint32_t)f.value;
        else if ((f.number == DELIVERY_EXPIRES && !read_expiry(f.bytes, &out->expires_s)) ||
                 (f.number == DELIVERY_COMMAND && !read_command(f.bytes, &out->wants)))
            return false;
    }
    return has_id;
}

static void put_varint(struct buf *out, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buf_put_u8(out, (uint8_t)(v | 0x80));
    buf_put_u8(out, (uint8_t)v);
}

static void put_key(struct buf *out, unsigned number, enum wire wire)
{
    put_varint(out, number << 3 | (unsigned)wire);
}

static void put_string(struct buf *out, unsigned number, const char *s)
{
    size_t len = strlen(s);

    put_key(out, number, WIRE_BYTES);
    put_varint(out, len);
    buf_put(out, s, len);
}

/* Length of a string field with a one-byte key and a one-byte length. */
static size_t short_string_size(const char *s)
{
    return 2 + strlen(s);
}

static void put_item(struct buf *out, const char *name, const char *value)
{
    put_key(out, INFO_ITEMS, WIRE_BYTES);
    put_varint(out, short_string_size(name) + short_string_size(value));
    put_string(out, 1, name);
    put_string(out, 2, value);
}

static void put_information(struct buf *out, const char *device)
{
    static const char os[] = "17.2.1", model[] = "Simulated1,1", item[] = "battery_level", value[] = "0.81";
    char serial[65];
    size_t len = strlen(device) < sizeof serial ? strlen(device) : sizeof serial - 1;

    memcpy(serial, device, len);
    serial[len] = '\0';
    put_key(out, ACK_INFORMATION, WIRE_BYTES);
    put_varint(out, short_string_size(os) + short_string_size(model) + short_string_size(serial) + 2 +
                        short_string_size(item) + short_string_size(value));
    put_string(out, INFO_OS_VERSION, os);
    put_string(out, INFO_MODEL, model);
    put_string(out, INFO_SERIAL, serial);
    put_item(out, item, value);
}

static void put_backup_reference(struct buf *out, const char *device, const char id[UUID_TEXT])
{
    static const char prefix[] = "backup://simulated/";
    size_t len = strlen(device);

    put_key(out, ACK_BACKUP, WIRE_BYTES);
    put_varint(out, sizeof prefix - 1 + len + 1 + UUID_TEXT);
    buf_put(out, prefix, sizeof prefix - 1);
    buf_put(out, device, len);
    buf_put_u8(out, '/');
    buf_put(out, id, UUID_TEXT);
}

static void put_payload(struct buf *out, uint32_t len)
{
    put_key(out, ACK_PAYLOAD, WIRE_BYTES);
    put_varint(out, len);
    uint8_t *p = buf_reserve(out, len);
    if (p) {
        memset(p, 'x', len);
        buf_commit(out, len);
    }
}

void acknowledgement_write(struct buf *out, const struct acknowledgement *a)
{
    char id[UUID_TEXT];

    uuid_write(a->id, id);
    put_key(out, ACK_ID, WIRE_BYTES);
    put_varint(out, UUID_TEXT);
    buf_put(out, id, UUID_TEXT);
    put_key(out, ACK_OUTCOME, WIRE_VARINT);
    put_varint(out, (uint64_t)a->outcome);
    if (a->outcome == OUTCOME_FAILED || a->outcome == OUTCOME_REJECTED) {
        put_key(out, ACK_CODE, WIRE_VARINT);
        put_varint(out, a->outcome == OUTCOME_FAILED ? 5 : 95); /* EIO, EOPNOTSUPP */
        put_string(out, ACK_TEXT, a->outcome == OUTCOME_FAILED ? "simulated failure" : "simulated refusal");
    }
    if (a->outcome != OUTCOME_SUCCEEDED)
        return;
    if (a->wants == WANTS_INFORMATION)
        put_information(out, a->device);
    if (a->wants == WANTS_BACKUP_REFERENCE)
        put_backup_reference(out, a->device, id);
    if (a->payload_bytes > 0)
        put_payload(out, a->payload_bytes);
}
