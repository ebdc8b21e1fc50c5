/* What a device says, well-formed, with choices drawn from the input.
 * Owns: nothing. May call: proto, generated messages, tests/fuzz/input. Loop rule: none. */
#ifndef MUSTER_TESTS_FUZZ_DEVICE_H
#define MUSTER_TESTS_FUZZ_DEVICE_H

#include "muster/v1/delivery.pb-c.h"
#include "proto/command_id.h"
#include "proto/credential.h"
#include "proto/mqtt.h"
#include "tests/fuzz/input.h"

#define DEVICES         3 /* seq 0 … 2 */
#define DEVICE_BATCHES  5 /* 1 … 5 */
#define DEVICE_TENANT   7
#define DEVICE_BEGIN_MS 1700000000000

static const char *const device_ids[DEVICES] = {"d0", "a-device-id-of-a-usual-length", "d2:x.y@z"};
static const uint8_t device_secret[CREDENTIAL_SECRET_BYTES] = {1, 2, 3}; /* signs */
static char device_tokens[DEVICES][CREDENTIAL_TOKEN_MAX];

static inline void sign_tokens(void)
{
    for (uint32_t i = 0; i < DEVICES; i++)
        credential_sign(device_tokens[i],
                        &(struct credential){.key_id = 1,
                                             .tenant = DEVICE_TENANT,
                                             .seq = i,
                                             .issued_ms = DEVICE_BEGIN_MS,
                                             .expires_ms = DEVICE_BEGIN_MS + 3600000},
                        device_ids[i], device_secret);
}

static inline void say_text(struct buf *b, const char *s)
{
    buf_put_u16be(b, (uint16_t)strlen(s));
    buf_put_str(b, s);
}

static inline void say_topic(struct buf *b, unsigned device, const char *what)
{
    buf_put_u16be(b, (uint16_t)(strlen("devices/") + strlen(device_ids[device]) + strlen(what)));
    buf_printf(b, "devices/%s%s", device_ids[device], what);
}

static inline void say_packet(struct buf *out, uint8_t first, struct buf *body)
{
    buf_put_u8(out, first);
    size_t len = buf_len(body);
    for (; len > 127; len >>= 7)
        buf_put_u8(out, (uint8_t)(len | 128));
    buf_put_u8(out, (uint8_t)len);
    buf_put(out, buf_slice(body).data, buf_len(body));
    buf_free(body);
}

static inline void say_properties(struct buf *b, uint8_t version, unsigned choice)
{
    static const char json[] = "\x26\0\x0c"
                               "content-type\0\x10"
                               "application/json";
    static const struct slice kinds[] = {{(const uint8_t *)"", 0},
                                         {(const uint8_t *)json, sizeof json - 1},
                                         {(const uint8_t *)"\x21\0\1", 3},
                                         {(const uint8_t *)"\x27\0\0\0\x60", 5}};
    struct slice s = kinds[choice % 4];
    if (version != MQTT_5)
        return;
    buf_put_u8(b, (uint8_t)s.len);
    buf_put(b, s.data, s.len);
}

/* Returns the version. */
static inline uint8_t say_connect(struct buf *out, unsigned device, struct slice *in)
{
    struct buf b = {0};
    uint8_t how = take_u8(in), version = how & 1 ? MQTT_5 : MQTT_3_1_1;
    say_text(&b, "MQTT");
    buf_put_u8(&b, version);
    buf_put_u8(&b, 0xc2);
    buf_put_u16be(&b, how & 2 ? 1 : 0);
    say_properties(&b, version, how >> 2);
    say_text(&b, how & 32 ? "" : "client");
    say_text(&b, device_ids[device]);
    say_text(&b, device_tokens[how & 128 ? (device + 1) % DEVICES : device]);
    say_packet(out, MQTT_KIND_CONNECT << 4, &b);
    return version;
}

static inline void say_filters(struct buf *out, uint8_t version, unsigned device, bool subscribe, struct slice *in)
{
    struct buf b = {0};
    uint8_t how = take_u8(in);
    buf_put_u16be(&b, (uint16_t)(1 + (how & 3)));
    say_properties(&b, version, how & 4 ? 1 : 0);
    for (unsigned i = 0; i <= (how >> 3 & 1); i++) {
        say_topic(&b, how & 16 ? (device + 1) % DEVICES : device, how & 32 ? "/acks" : "/commands");
        if (subscribe)
            buf_put_u8(&b, how >> 6 & 1);
    }
    say_packet(out, (uint8_t)((subscribe ? MQTT_KIND_SUBSCRIBE : MQTT_KIND_UNSUBSCRIBE) << 4 | 2), &b);
}

static inline void say_answer(struct buf *out, uint8_t version, unsigned device, struct slice *in)
{
    struct buf b = {0};
    uint8_t how = take_u8(in), id = take_u8(in), payload[256];
    char text[COMMAND_ID_TEXT + 1] = {0};
    Muster__V1__Acknowledgement ack = MUSTER__V1__ACKNOWLEDGEMENT__INIT;
    bool qos = !(how & 64);
    command_id_write(
        text, &(struct command_id){1 + (how & 7) % DEVICE_BATCHES, DEVICE_TENANT, how & 128 ? device + 1 : device});
    say_topic(&b, device, "/acks");
    if (qos)
        buf_put_u16be(&b, (uint16_t)(id + 1));
    say_properties(&b, version, 0);
    if (how & 32) {
        buf_printf(&b, "{\"commandId\":\"%s\",\"outcome\":%u}", text, 1 + (how >> 3 & 3));
    } else {
        ack.command_id = text;
        ack.outcome = (Muster__V1__Outcome)(1 + (how >> 3 & 3));
        ack.text = id & 1 ? "because" : "";
        buf_put(&b, payload, muster__v1__acknowledgement__pack(&ack, payload));
    }
    say_packet(out, (uint8_t)(MQTT_KIND_PUBLISH << 4 | (qos ? 2 : 0)), &b);
}

static inline void say_puback(struct buf *out, struct slice *in)
{
    struct buf b = {0};
    buf_put_u16be(&b, (uint16_t)(1 + take_u8(in)));
    say_packet(out, MQTT_KIND_PUBACK << 4, &b);
}

#endif
