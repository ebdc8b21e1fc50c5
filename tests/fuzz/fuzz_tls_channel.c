/* What a TLS peer sends after the handshake. The first byte chooses cipher and side. The rest is either raw bytes, or
 * a list of records (type, length, content) that are sealed with the peer's keys, so that what is inside them is
 * reached; then they are cut at a point and must come to the same as whole. */
#include <stdlib.h>
#include <string.h>

#include "lib/base/tls_channel.h"
#include "tests/fuzz/input.h"

#define WIRE_MAX (64 * 1024)

struct outcome {
    enum tls_outcome outcome;
    uint8_t alert;
    bool alert_came;
    size_t len;
    uint8_t data[WIRE_MAX];
};

static struct tls_ciphers *ciphers;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    ciphers = tls_ciphers_new();
    check(ciphers != NULL);
    return 0;
}

static struct tls_channel *new_channel(enum tls_suite suite, bool server)
{
    static const uint8_t ours[TLS_SECRET_MAX] = {1}, theirs[TLS_SECRET_MAX] = {2};
    struct tls_channel *c = tls_channel_new(
        ciphers,
        &(struct tls_channel_start){.suite = suite, .server = server, .read_secret = theirs, .write_secret = ours});
    check(c != NULL);
    tls_channel_set_key_records(c, 8);
    return c;
}

/* Seals records of type, length (a byte, times 64 with the top bit) and content; follows the peer's key updates. */
static size_t seal(enum tls_suite suite, struct slice in, uint8_t *wire)
{
    static const uint8_t theirs[TLS_SECRET_MAX] = {2};
    uint64_t room[32];
    struct tls_keys *keys = (struct tls_keys *)room;
    size_t at = 0;
    uint8_t type, n;
    struct slice content;
    check(tls_keys_size(suite) <= sizeof room && tls_keys_init(ciphers, keys, suite, theirs));
    while (slice_u8(&in, &type) && slice_u8(&in, &n)) {
        size_t len = n < 128 ? n : (size_t)(n - 127) * 64;
        if (len > in.len)
            len = in.len;
        check(slice_bytes(&in, len, &content));
        if (at + len + TLS_SEALED_EXTRA > WIRE_MAX)
            break;
        size_t made = tls_record_seal(ciphers, keys, (enum tls_content)type, content.data, len, wire + at);
        check(made == len + TLS_SEALED_EXTRA);
        at += made;
        if (type == TLS_CONTENT_HANDSHAKE && len == 5 && content.data[0] == 24)
            check(tls_keys_update(ciphers, keys));
    }
    return at;
}

/* Gives the wire in two pieces (`cut` 0: in one), as a stream does. */
static void run(struct tls_channel *c, const uint8_t *wire, size_t len, size_t cut, struct outcome *o)
{
    static uint8_t buffer[WIRE_MAX];
    struct tls_received r;
    size_t have = cut ? cut : len, given = have;
    o->len = 0;
    memcpy(buffer, wire, have);
    for (;;) {
        o->outcome = tls_channel_open(c, buffer, have, &r);
        check(r.used <= have && r.len <= r.used);
        check(r.len == 0 || (r.data >= buffer && r.data + r.len <= buffer + r.used));
        memcpy(o->data + o->len, r.data, r.len);
        o->len += r.len;
        o->alert = r.alert;
        o->alert_came = r.alert_came;
        if (o->outcome != TLS_MORE || given == len)
            return;
        memmove(buffer, buffer + r.used, have - r.used);
        have -= r.used;
        memcpy(buffer + have, wire + given, len - given);
        have += len - given;
        given = len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t wire[WIRE_MAX];
    static struct outcome whole, parts;
    struct slice in = {data, size};
    uint8_t choice, cut;
    size_t taken;
    if (!slice_u8(&in, &choice) || !slice_u8(&in, &cut) || in.len > WIRE_MAX)
        return 0;
    enum tls_suite suite = choice % TLS_SUITE_COUNT;
    bool server = choice & 64, raw = choice & 128;
    size_t len = raw ? in.len : seal(suite, in, wire);
    if (raw && len > 0)
        memcpy(wire, in.data, len);
    if (len == 0)
        return 0;
    struct tls_channel *one = new_channel(suite, server), *two = new_channel(suite, server);
    run(one, wire, len, 0, &whole);
    run(two, wire, len, cut % len, &parts);
    check(whole.outcome == parts.outcome && whole.len == parts.len && whole.alert == parts.alert &&
          whole.alert_came == parts.alert_came);
    check(memcmp(whole.data, parts.data, whole.len) == 0);
    check(tls_channel_seal(one, wire, 10, &taken).len > 0 && taken == 10);
    check(tls_channel_alert(one, whole.alert).len > 0);
    tls_channel_free(&one);
    tls_channel_free(&two);
    return 0;
}
