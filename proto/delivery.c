#include "proto/delivery.h"

#include "lib/base/utf8.h"
#include "proto/varint.h"

static void put_tag(struct buf *out, unsigned field, unsigned wire)
{
    varint_put(out, field << 3 | wire);
}

static void put_bytes(struct buf *out, unsigned field, struct slice s)
{
    if (s.len == 0)
        return;
    put_tag(out, field, WIRE_BYTES);
    varint_put(out, s.len);
    buf_put(out, s.data, s.len);
}

struct field {
    uint64_t number, value; /* value of a varint */
    unsigned wire;
    struct slice bytes;
};

/* Takes the next field. Returns 1, 0 at the end, -1 when the rest is no field. */
static int next_field(struct slice *s, struct field *f)
{
    uint64_t tag, len;
    if (s->len == 0)
        return 0;
    *f = (struct field){0};
    if (!varint_take(s, &tag) || tag >> 3 == 0)
        return -1;
    f->number = tag >> 3;
    f->wire = (unsigned)(tag & 7);
    switch (f->wire) {
    case WIRE_VARINT:
        return varint_take(s, &f->value) ? 1 : -1;
    case WIRE_BYTES:
        return varint_take(s, &len) && len <= s->len && slice_bytes(s, (size_t)len, &f->bytes) ? 1 : -1;
    case WIRE_FIXED32:
    case WIRE_FIXED64:
        return slice_bytes(s, f->wire == WIRE_FIXED32 ? 4 : 8, &f->bytes) ? 1 : -1;
    default:
        return -1;
    }
}

void delivery_put_head(uint8_t head[DELIVERY_HEAD], const struct command_id *id, unsigned attempt)
{
    head[0] = 1 << 3 | WIRE_BYTES;
    head[1] = COMMAND_ID_TEXT;
    command_id_write((char *)head + 2, id);
    head[2 + COMMAND_ID_TEXT] = 2 << 3 | WIRE_VARINT;
    head[3 + COMMAND_ID_TEXT] = (uint8_t)(attempt & 0x7f);
}

void delivery_put_retried(struct buf *out, unsigned retried)
{
    uint8_t outcomes[8];
    size_t n = 0;
    for (uint8_t outcome = 1; outcome < sizeof outcomes; outcome++)
        if (retried >> outcome & 1)
            outcomes[n++] = outcome;
    put_bytes(out, 5, (struct slice){outcomes, n});
}

void delivery_put_front(struct buf *out, int64_t expires_ms)
{
    struct buf time = {0};
    if (expires_ms >= 1000) {
        put_tag(&time, 1, WIRE_VARINT);
        varint_put(&time, (uint64_t)(expires_ms / 1000));
    }
    if (expires_ms % 1000) {
        put_tag(&time, 2, WIRE_VARINT);
        varint_put(&time, (uint64_t)(expires_ms % 1000) * 1000000);
    }
    put_bytes(out, 3, buf_slice(&time));
    out->failed = out->failed || time.failed;
    buf_free(&time);
}

size_t delivery_put_command_head(uint8_t head[DELIVERY_COMMAND_HEAD_MAX], size_t len)
{
    size_t n = 0;
    head[n++] = 4 << 3 | WIRE_BYTES;
    for (; len >= 0x80; len >>= 7)
        head[n++] = (uint8_t)(len | 0x80);
    head[n++] = (uint8_t)len;
    return n;
}

void delivery_put_tail(struct buf *out, int64_t expires_ms, struct slice command)
{
    uint8_t head[DELIVERY_COMMAND_HEAD_MAX];
    delivery_put_front(out, expires_ms);
    /* A command without content (unlock with all defaults) is present all the same. */
    buf_put(out, head, delivery_put_command_head(head, command.len));
    buf_put(out, command.data, command.len);
}

/* Field `number` of a message is text of at most `max` bytes. */
static bool is_text(const struct field *f, uint64_t number, size_t max)
{
    return f->number == number && f->wire == WIRE_BYTES && f->bytes.len <= max && utf8_good(f->bytes);
}

/* An entry of the map `items`: key and value. */
static bool check_item(struct slice entry)
{
    struct field f;
    int got;
    while ((got = next_field(&entry, &f)) == 1)
        if (f.number <= 2 && !is_text(&f, 1, INFORMATION_NAME_MAX) && !is_text(&f, 2, INFORMATION_VALUE_MAX))
            return false;
    return got == 0;
}

/* It is kept as it is and shown to callers, so it must be the message it claims to be. */
static bool check_information(struct slice information)
{
    struct field f;
    unsigned items = 0;
    int got;
    while ((got = next_field(&information, &f)) == 1) {
        bool good = f.number > 4 || is_text(&f, 1, INFORMATION_OS_MAX) || is_text(&f, 2, INFORMATION_TEXT_MAX) ||
                    is_text(&f, 3, INFORMATION_TEXT_MAX) ||
                    (f.number == 4 && f.wire == WIRE_BYTES && ++items <= INFORMATION_ITEMS_MAX && check_item(f.bytes));
        if (!good)
            return false;
    }
    return got == 0;
}

static const char *check_limits(const struct acknowledgement *ack, bool has_id)
{
    if (!has_id)
        return "command_id is missing or no command id";
    if (ack->outcome < 1 || ack->outcome > 4)
        return "outcome is missing or unknown";
    if (ack->text.len > ACKNOWLEDGEMENT_TEXT_MAX)
        return "text is longer than 1024 bytes";
    if (!utf8_good(ack->text) || !utf8_good(ack->backup_reference))
        return "text or backup_reference is not UTF-8";
    if (!check_information(ack->information))
        return "information is malformed or too long";
    if (ack->backup_reference.len > ACKNOWLEDGEMENT_BACKUP_MAX)
        return "backup_reference is longer than 2048 bytes";
    if (ack->payload.len > ACKNOWLEDGEMENT_PAYLOAD_MAX)
        return "payload is longer than 32768 bytes";
    return NULL;
}

const char *acknowledgement_read(struct acknowledgement *ack, struct slice message)
{
    struct slice *const bytes[] = {
        [4] = &ack->text, [5] = &ack->information, [6] = &ack->backup_reference, [7] = &ack->payload};
    struct field f;
    bool has_id = false;
    int got;
    if (message.len > ACKNOWLEDGEMENT_MAX)
        return "longer than 65536 bytes";
    *ack = (struct acknowledgement){0};
    while ((got = next_field(&message, &f)) == 1) {
        if (f.number == 1 && f.wire == WIRE_BYTES)
            has_id = command_id_read(&ack->id, f.bytes.data, f.bytes.len);
        else if (f.number == 2 && f.wire == WIRE_VARINT)
            ack->outcome = f.value <= 4 ? (int)f.value : -1;
        else if (f.number == 3 && f.wire == WIRE_VARINT)
            ack->code = (int32_t)f.value;
        else if (f.number >= 4 && f.number <= 7 && f.wire == WIRE_BYTES)
            *bytes[f.number] = f.bytes;
        else if (f.number <= 7)
            return "a field has the wrong wire type";
    }
    return got < 0 ? "not a protobuf message" : check_limits(ack, has_id);
}

void information_read(struct slice information, struct slice *os_version, struct slice *model)
{
    struct field f;
    *os_version = *model = (struct slice){0};
    while (next_field(&information, &f) == 1) {
        if (f.wire == WIRE_BYTES && f.number == 1)
            *os_version = f.bytes;
        else if (f.wire == WIRE_BYTES && f.number == 2)
            *model = f.bytes;
    }
}

bool acknowledgement_has_result(const struct acknowledgement *ack)
{
    return ack->code || ack->text.len || ack->information.len || ack->backup_reference.len || ack->payload.len;
}

void acknowledgement_put_result(struct buf *out, const struct acknowledgement *ack)
{
    if (ack->code) {
        put_tag(out, 1, WIRE_VARINT);
        varint_put(out, (uint64_t)(int64_t)ack->code);
    }
    put_bytes(out, 2, ack->text);
    put_bytes(out, 3, ack->information);
    put_bytes(out, 4, ack->backup_reference);
    put_bytes(out, 5, ack->payload);
}

void acknowledgement_put_delivery(struct buf *out, int outcome, unsigned attempt)
{
    put_tag(out, 8, WIRE_VARINT);
    varint_put(out, (uint64_t)outcome);
    put_tag(out, 9, WIRE_VARINT);
    varint_put(out, attempt);
}
