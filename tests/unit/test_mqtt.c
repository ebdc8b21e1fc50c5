/* The MQTT codec: packets as stock clients write them, whole, byte by byte and cut at every point; packets that break
 * the rules and the reason each gets; what the server writes, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/mqtt.h"

#define BYTES(...)                                                                                                     \
    (struct slice)                                                                                                     \
    {                                                                                                                  \
        (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})                                         \
    }

/* A copy of exactly this size, so that the sanitizer sees a read past the end. */
static uint8_t *exact(struct slice s)
{
    uint8_t *p = malloc(s.len ? s.len : 1);
    assert_non_null(p);
    memcpy(p, s.data, s.len);
    return p;
}

/* Decodes `bytes`; every shorter beginning must be MORE. */
static struct mqtt_packet decode(uint8_t version, struct slice bytes)
{
    struct mqtt_packet packet;
    uint8_t reason;
    for (size_t len = 0; len < bytes.len; len++) {
        uint8_t *part = exact((struct slice){bytes.data, len});
        struct slice in = {part, len};
        assert_int_equal(mqtt_decode(&in, version, &packet, &reason), MQTT_MORE);
        assert_int_equal(in.len, len);
        free(part);
    }
    struct slice in = bytes;
    assert_int_equal(mqtt_decode(&in, version, &packet, &reason), MQTT_DONE);
    assert_int_equal(in.len, 0);
    return packet;
}

static void refused(uint8_t version, struct slice bytes, enum mqtt_reason why)
{
    struct mqtt_packet packet;
    uint8_t reason = 0, *whole = exact(bytes);
    struct slice in = {whole, bytes.len};
    assert_int_equal(mqtt_decode(&in, version, &packet, &reason), MQTT_BAD);
    assert_int_equal(reason, why);
    assert_int_equal(in.len, bytes.len);
    free(whole);
}

static void assert_text(struct slice s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.data, text, s.len);
}

/* --- CONNECT ------------------------------------------------------------------------------------------------------ */

static void connect_of_3_1_1(void **unused)
{
    (void)unused;
    struct mqtt_packet p =
        decode(0, BYTES(0x10, 19, 0, 4, 'M', 'Q', 'T', 'T', 4, 0xc2, 0, 60, 0, 1, 'c', 0, 1, 'u', 0, 1, 'p'));
    assert_int_equal(p.kind, MQTT_KIND_CONNECT);
    assert_int_equal(p.connect.version, MQTT_3_1_1);
    assert_int_equal(p.connect.keepalive_s, 60);
    assert_true(p.connect.clean_start && p.connect.has_user_name && p.connect.has_password && !p.connect.has_will);
    assert_text(p.connect.client_id, "c");
    assert_text(p.connect.user_name, "u");
    assert_text(p.connect.password, "p");
    assert_int_equal(p.connect.properties.receive_maximum, UINT16_MAX);
}

static void connect_of_5_with_will_and_properties(void **unused)
{
    (void)unused;
    struct mqtt_packet p =
        decode(0, BYTES(0x10, 55, 0, 4, 'M', 'Q', 'T', 'T', 5, 0x86, 0, 10, /* will, clean start, user name */
                        22, 0x21, 0, 7, 0x27, 0, 0, 1, 0,                   /* Receive Maximum, Maximum Packet Size */
                        0x26, 0, 1, 'a', 0, 1, 'b', 0x26, 0, 1, 'k', 0, 1, 'v', /* user properties */
                        0, 0,                                                   /* client id */
                        5, 0x18, 0, 0, 0, 9, 0, 1, 't', 0, 3, 'w', 'i', 'l',    /* will */
                        0, 4, 'n', 'a', 'm', 'e'));
    struct slice value;
    assert_int_equal(p.connect.version, MQTT_5);
    assert_true(p.connect.has_will);
    assert_int_equal(p.connect.properties.receive_maximum, 7);
    assert_int_equal(p.connect.properties.max_packet, 256);
    assert_text(p.connect.user_name, "name");
    assert_true(mqtt_user_property(&p.connect.properties, "k", &value));
    assert_text(value, "v");
    assert_false(mqtt_user_property(&p.connect.properties, "x", &value));
}

static void a_connect_that_breaks_the_rules_is_refused(void **unused)
{
    (void)unused;
    /* reserved flag */
    refused(0, BYTES(0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x03, 0, 0, 0, 0), MQTT_MALFORMED_PACKET);
    /* will QoS without will, will QoS 3 */
    refused(0, BYTES(0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x0a, 0, 0, 0, 0), MQTT_MALFORMED_PACKET);
    refused(0, BYTES(0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x1e, 0, 0, 0, 0), MQTT_MALFORMED_PACKET);
    /* password without user name */
    refused(0, BYTES(0x10, 15, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x42, 0, 0, 0, 0, 0, 1, 'p'), MQTT_MALFORMED_PACKET);
    /* no clean session without a client id */
    refused(0, BYTES(0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x00, 0, 0, 0, 0), MQTT_CLIENT_ID_NOT_VALID);
    /* another protocol, other versions */
    refused(0, BYTES(0x10, 12, 0, 4, 'M', 'Q', 'T', 'X', 4, 0x02, 0, 0, 0, 0), MQTT_MALFORMED_PACKET);
    refused(0, BYTES(0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 3, 0x02, 0, 0, 0, 0), MQTT_UNSUPPORTED_VERSION);
    refused(0, BYTES(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 6, 0x02, 0, 0, 0, 0, 0), MQTT_UNSUPPORTED_VERSION);
    refused(0, BYTES(0x10, 14, 0, 6, 'M', 'Q', 'I', 's', 'd', 'p', 3, 0x02, 0, 0, 0, 0), MQTT_UNSUPPORTED_VERSION);
    /* bytes left over, bytes missing */
    refused(0, BYTES(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x02, 0, 0, 0, 0, 0), MQTT_MALFORMED_PACKET);
    refused(0, BYTES(0x10, 11, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x02, 0, 0, 0), MQTT_MALFORMED_PACKET);
    /* extended authentication; its data without a method */
    refused(0, BYTES(0x10, 17, 0, 4, 'M', 'Q', 'T', 'T', 5, 0x02, 0, 0, 4, 0x15, 0, 1, 'm', 0, 0),
            MQTT_BAD_AUTHENTICATION_METHOD);
    refused(0, BYTES(0x10, 17, 0, 4, 'M', 'Q', 'T', 'T', 5, 0x02, 0, 0, 4, 0x16, 0, 1, 'm', 0, 0), MQTT_PROTOCOL_ERROR);
    /* a retained will, a will at QoS 2 */
    refused(0, BYTES(0x10, 18, 0, 4, 'M', 'Q', 'T', 'T', 5, 0x26, 0, 0, 0, 0, 0, 0, 0, 1, 't', 0, 0),
            MQTT_RETAIN_NOT_SUPPORTED);
    refused(0, BYTES(0x10, 18, 0, 4, 'M', 'Q', 'T', 'T', 5, 0x16, 0, 0, 0, 0, 0, 0, 0, 1, 't', 0, 0),
            MQTT_QOS_NOT_SUPPORTED);
}

/* A CONNECT of 5.0 with these properties, of at most 100 bytes. */
static struct slice connect_with(uint8_t out[128], struct slice properties)
{
    static const uint8_t head[] = {0x10, 0, 0, 4, 'M', 'Q', 'T', 'T', 5, 0x02, 0, 0};
    memcpy(out, head, sizeof head);
    out[1] = (uint8_t)(sizeof head - 2 + 1 + properties.len + 2);
    out[sizeof head] = (uint8_t)properties.len;
    memcpy(out + sizeof head + 1, properties.data, properties.len);
    memset(out + sizeof head + 1 + properties.len, 0, 2);
    return (struct slice){out, sizeof head + 3 + properties.len};
}

static void properties_have_their_rules(void **unused)
{
    (void)unused;
    uint8_t out[128];
    decode(0, connect_with(out, BYTES(0x11, 0, 0, 0, 1, 0x22, 0, 0, 0x17, 1, 0x19, 0)));
    /* twice */
    refused(0, connect_with(out, BYTES(0x21, 0, 1, 0x21, 0, 1)), MQTT_PROTOCOL_ERROR);
    /* zero where it must not be */
    refused(0, connect_with(out, BYTES(0x21, 0, 0)), MQTT_PROTOCOL_ERROR);
    refused(0, connect_with(out, BYTES(0x27, 0, 0, 0, 0)), MQTT_PROTOCOL_ERROR);
    /* neither 0 nor 1 */
    refused(0, connect_with(out, BYTES(0x17, 2)), MQTT_PROTOCOL_ERROR);
    /* of another packet, of a server, of nobody */
    refused(0, connect_with(out, BYTES(0x23, 0, 1)), MQTT_PROTOCOL_ERROR);
    refused(0, connect_with(out, BYTES(0x24, 1)), MQTT_PROTOCOL_ERROR);
    refused(0, connect_with(out, BYTES(0x04, 1)), MQTT_MALFORMED_PACKET);
    refused(0, connect_with(out, BYTES(0x2b, 1)), MQTT_MALFORMED_PACKET);
    refused(0, connect_with(out, BYTES(0x80, 0x01, 1)), MQTT_MALFORMED_PACKET);
    /* cut short */
    refused(0, connect_with(out, BYTES(0x11, 0, 0)), MQTT_MALFORMED_PACKET);
    refused(0, connect_with(out, BYTES(0x26, 0, 1, 'a', 0, 9, 'b')), MQTT_MALFORMED_PACKET);
    /* longer than the packet */
    refused(0, BYTES(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 5, 0x02, 0, 0, 9, 0, 0), MQTT_MALFORMED_PACKET);
}

static void text_is_utf8(void **unused)
{
    (void)unused;
    static const struct {
        bool good;
        uint8_t text[4];
    } texts[] = {
        {true, {'a', 'b', 'c', 'd'}},      {true, {0xc3, 0xa9, 0xc2, 0x80}}, {true, {0xf0, 0x9f, 0x94, 0x92}},
        {true, {'x', 0xe2, 0x82, 0xac}},   {true, {'x', 0xef, 0xbf, 0xbd}},  {true, {0xf4, 0x8f, 0xbf, 0xbf}},
        {false, {'a', 0, 'b', 'c'}},       /* U+0000 */
        {false, {0xc0, 0x80, 'x', 'x'}},   /* overlong */
        {false, {'x', 0xe0, 0x80, 0x80}},  /* overlong */
        {false, {0xf0, 0x80, 0x80, 0x80}}, /* overlong */
        {false, {'x', 0xed, 0xa0, 0x80}},  /* surrogate */
        {false, {0xf4, 0x90, 0x80, 0x80}}, /* past U+10FFFF */
        {false, {'a', 'b', 'c', 0xc3}},    /* cut */
        {false, {'a', 'b', 0xe2, 0x82}},   /* cut */
        {false, {0x80, 'a', 'b', 'c'}},    /* continuation alone */
        {false, {'a', 0xff, 'b', 'c'}},
    };
    uint8_t packet[] = {0x10, 20, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x82, 0, 0, 0, 2, 'i', 'd', 0, 4, 0, 0, 0, 0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        memcpy(packet + sizeof packet - 4, texts[i].text, 4);
        if (texts[i].good)
            decode(0, (struct slice){packet, sizeof packet});
        else
            refused(0, (struct slice){packet, sizeof packet}, MQTT_MALFORMED_PACKET);
    }
}

/* --- the others --------------------------------------------------------------------------------------------------- */

static void publish_of_both_versions(void **unused)
{
    (void)unused;
    struct mqtt_packet p = decode(MQTT_3_1_1, BYTES(0x3a, 9, 0, 3, 'a', '/', 'b', 0, 7, 'h', 'i'));
    assert_int_equal(p.kind, MQTT_KIND_PUBLISH);
    assert_true(p.publish.dup && p.publish.qos == 1 && p.publish.packet_id == 7 && !p.publish.retain);
    assert_text(p.publish.topic, "a/b");
    assert_text(p.publish.payload, "hi");
    p = decode(MQTT_3_1_1, BYTES(0x30, 3, 0, 1, 't'));
    assert_true(p.publish.qos == 0 && p.publish.packet_id == 0 && p.publish.payload.len == 0);
    p = decode(MQTT_5, BYTES(0x32, 13, 0, 1, 't', 0, 1, 6, 0x03, 0, 3, 'x', '/', 'y', '!'));
    assert_text(p.publish.properties.content_type, "x/y");
    assert_text(p.publish.payload, "!");
}

static void a_publish_that_breaks_the_rules_is_refused(void **unused)
{
    (void)unused;
    for (uint8_t version = MQTT_3_1_1; version <= MQTT_5; version++) {
        refused(version, BYTES(0x34, 6, 0, 1, 't', 0, 1, 0), MQTT_QOS_NOT_SUPPORTED);
        refused(version, BYTES(0x36, 6, 0, 1, 't', 0, 1, 0), MQTT_MALFORMED_PACKET); /* QoS 3 */
        refused(version, BYTES(0x38, 4, 0, 1, 't', 0), MQTT_MALFORMED_PACKET);       /* dup at QoS 0 */
        refused(version, BYTES(0x32, 6, 0, 1, 't', 0, 0, 0), MQTT_MALFORMED_PACKET); /* packet id 0 */
        refused(version, BYTES(0x32, 4, 0, 1, 't', 0), MQTT_MALFORMED_PACKET);       /* no packet id */
        refused(version, BYTES(0x30, 4, 0, 1, '#', 0), MQTT_TOPIC_NAME_INVALID);
        refused(version, BYTES(0x30, 4, 0, 1, '+', 0), MQTT_TOPIC_NAME_INVALID);
        refused(version, BYTES(0x30, 3, 0, 9, 't'), MQTT_MALFORMED_PACKET);
    }
    refused(MQTT_3_1_1, BYTES(0x30, 2, 0, 0), MQTT_MALFORMED_PACKET);
    refused(MQTT_5, BYTES(0x30, 3, 0, 0, 0), MQTT_PROTOCOL_ERROR);
    refused(MQTT_5, BYTES(0x31, 4, 0, 1, 't', 0), MQTT_RETAIN_NOT_SUPPORTED);
    refused(MQTT_5, BYTES(0x30, 7, 0, 1, 't', 3, 0x23, 0, 1), MQTT_TOPIC_ALIAS_INVALID);
    refused(MQTT_5, BYTES(0x30, 6, 0, 1, 't', 2, 0x0b, 1), MQTT_PROTOCOL_ERROR); /* Subscription Identifier */
}

static void puback_disconnect_ping_auth(void **unused)
{
    (void)unused;
    struct mqtt_packet p = decode(MQTT_3_1_1, BYTES(0x40, 2, 1, 2));
    assert_true(p.kind == MQTT_KIND_PUBACK && p.puback.packet_id == 0x102 && p.puback.reason == 0);
    p = decode(MQTT_5, BYTES(0x40, 3, 1, 2, 0x97));
    assert_int_equal(p.puback.reason, MQTT_QUOTA_EXCEEDED);
    p = decode(MQTT_5, BYTES(0x40, 8, 1, 2, 0x80, 4, 0x1f, 0, 1, 'r'));
    assert_int_equal(p.puback.reason, 0x80);
    refused(MQTT_3_1_1, BYTES(0x40, 3, 1, 2, 0), MQTT_MALFORMED_PACKET);
    refused(MQTT_5, BYTES(0x40, 2, 0, 0), MQTT_MALFORMED_PACKET);
    refused(MQTT_5, BYTES(0x41, 2, 0, 1), MQTT_MALFORMED_PACKET);
    assert_int_equal(decode(MQTT_3_1_1, BYTES(0xe0, 0)).kind, MQTT_KIND_DISCONNECT);
    assert_int_equal(decode(MQTT_5, BYTES(0xe0, 1, 4)).reason, 4);
    assert_int_equal(decode(MQTT_5, BYTES(0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9)).reason, 0);
    refused(MQTT_3_1_1, BYTES(0xe0, 1, 0), MQTT_MALFORMED_PACKET);
    assert_int_equal(decode(MQTT_5, BYTES(0xc0, 0)).kind, MQTT_KIND_PINGREQ);
    refused(MQTT_5, BYTES(0xc0, 1, 0), MQTT_MALFORMED_PACKET);
    assert_int_equal(decode(MQTT_5, BYTES(0xf0, 0)).kind, MQTT_KIND_AUTH);
    refused(MQTT_3_1_1, BYTES(0xf0, 0), MQTT_PROTOCOL_ERROR);
}

static void subscriptions(void **unused)
{
    (void)unused;
    struct mqtt_packet p = decode(MQTT_3_1_1, BYTES(0x82, 10, 0, 5, 0, 1, 'a', 1, 0, 1, 'b', 0));
    struct slice rest = p.filters.filters, filter;
    uint8_t options;
    assert_int_equal(p.filters.packet_id, 5);
    assert_true(mqtt_next_filter(&rest, &filter, &options));
    assert_text(filter, "a");
    assert_int_equal(options, 1);
    assert_true(mqtt_next_filter(&rest, &filter, &options));
    assert_text(filter, "b");
    assert_false(mqtt_next_filter(&rest, &filter, &options));
    p = decode(MQTT_5, BYTES(0x82, 9, 0, 5, 2, 0x0b, 3, 0, 1, 'a', 0x2d));
    assert_true(p.filters.properties.present >> MQTT_SUBSCRIPTION_ID & 1);
    p = decode(MQTT_3_1_1, BYTES(0xa2, 5, 0, 5, 0, 1, 'a'));
    assert_int_equal(p.kind, MQTT_KIND_UNSUBSCRIBE);
    p = decode(MQTT_5, BYTES(0xa2, 6, 0, 5, 0, 0, 1, 'a'));
    rest = p.filters.filters;
    assert_true(mqtt_next_filter(&rest, &filter, NULL));
    assert_text(filter, "a");
}

static void subscriptions_that_break_the_rules_are_refused(void **unused)
{
    (void)unused;
    refused(MQTT_3_1_1, BYTES(0x82, 2, 0, 5), MQTT_PROTOCOL_ERROR); /* none */
    refused(MQTT_3_1_1, BYTES(0xa2, 2, 0, 5), MQTT_PROTOCOL_ERROR);
    refused(MQTT_3_1_1, BYTES(0x82, 6, 0, 0, 0, 1, 'a', 0), MQTT_MALFORMED_PACKET);   /* packet id 0 */
    refused(MQTT_3_1_1, BYTES(0x82, 6, 0, 1, 0, 1, 'a', 3), MQTT_MALFORMED_PACKET);   /* QoS 3 */
    refused(MQTT_3_1_1, BYTES(0x82, 6, 0, 1, 0, 1, 'a', 4), MQTT_MALFORMED_PACKET);   /* reserved of 3.1.1 */
    refused(MQTT_5, BYTES(0x82, 7, 0, 1, 0, 0, 1, 'a', 0x40), MQTT_MALFORMED_PACKET); /* reserved */
    refused(MQTT_5, BYTES(0x82, 7, 0, 1, 0, 0, 1, 'a', 0x30), MQTT_MALFORMED_PACKET); /* retain handling 3 */
    refused(MQTT_3_1_1, BYTES(0x82, 5, 0, 1, 0, 0, 1), MQTT_MALFORMED_PACKET);        /* empty filter */
    refused(MQTT_3_1_1, BYTES(0x82, 5, 0, 1, 0, 1, 'a'), MQTT_MALFORMED_PACKET);      /* no options */
    refused(MQTT_3_1_1, BYTES(0x80, 6, 0, 1, 0, 1, 'a', 0), MQTT_MALFORMED_PACKET);   /* flags */
}

static void packets_out_of_place_are_refused(void **unused)
{
    (void)unused;
    refused(0, BYTES(0xc0, 0), MQTT_PROTOCOL_ERROR);
    refused(0, BYTES(0x16, 0x03, 0x01), MQTT_MALFORMED_PACKET); /* a TLS handshake on the plain port */
    refused(0, BYTES('G', 'E', 'T', ' '), MQTT_PROTOCOL_ERROR);
    refused(MQTT_5, BYTES(0x10, 0), MQTT_PROTOCOL_ERROR); /* a second CONNECT */
    refused(MQTT_5, BYTES(0x00, 0), MQTT_MALFORMED_PACKET);
    static const uint8_t of_servers[] = {0x20, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0};
    for (size_t i = 0; i < sizeof of_servers; i++)
        refused(MQTT_5, BYTES(of_servers[i], 2, 0, 1), MQTT_PROTOCOL_ERROR);
}

static void the_remaining_length_is_bounded(void **unused)
{
    (void)unused;
    struct mqtt_packet packet;
    uint8_t reason;
    struct slice most = BYTES(0x30, 0xfc, 0xff, 0x07); /* 4 + 131,068 bytes: the largest */
    assert_int_equal(mqtt_decode(&most, MQTT_5, &packet, &reason), MQTT_MORE);
    refused(MQTT_5, BYTES(0x30, 0xfd, 0xff, 0x07), MQTT_PACKET_TOO_LARGE);
    refused(MQTT_5, BYTES(0x30, 0xff, 0xff, 0xff, 0x7f), MQTT_PACKET_TOO_LARGE);
    refused(MQTT_5, BYTES(0x30, 0xff, 0xff, 0xff, 0xff), MQTT_MALFORMED_PACKET);
    refused(MQTT_5, BYTES(0x30, 0x83, 0x00), MQTT_MALFORMED_PACKET);  /* not the shortest form */
    refused(0, BYTES(0x10, 0x80, 0x80, 0x01), MQTT_PACKET_TOO_LARGE); /* a stranger gets 16 KiB */
}

static void packets_come_one_after_another(void **unused)
{
    (void)unused;
    struct slice in = BYTES(0xc0, 0, 0x40, 2, 0, 9, 0xe0, 0, 0x30);
    struct mqtt_packet packet;
    uint8_t reason;
    static const enum mqtt_kind kinds[] = {MQTT_KIND_PINGREQ, MQTT_KIND_PUBACK, MQTT_KIND_DISCONNECT};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mqtt_decode(&in, MQTT_3_1_1, &packet, &reason), MQTT_DONE);
        assert_int_equal(packet.kind, kinds[i]);
    }
    assert_int_equal(mqtt_decode(&in, MQTT_3_1_1, &packet, &reason), MQTT_MORE);
    assert_int_equal(in.len, 1);
}

/* --- what the server writes --------------------------------------------------------------------------------------- */

static void written(struct buf *out, struct slice expected)
{
    assert_false(out->failed);
    assert_int_equal(buf_len(out), expected.len);
    assert_memory_equal(buf_head(out), expected.data, expected.len);
    buf_reset(out);
}

static void connack_of_3_1_1(void **unused)
{
    (void)unused;
    static const uint8_t codes[][2] = {{MQTT_SUCCESS, 0},
                                       {MQTT_UNSUPPORTED_VERSION, 1},
                                       {MQTT_CLIENT_ID_NOT_VALID, 2},
                                       {MQTT_SERVER_UNAVAILABLE, 3},
                                       {MQTT_BAD_USER_NAME_OR_PASSWORD, 4},
                                       {MQTT_NOT_AUTHORIZED, 5}};
    struct buf out = {0};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        mqtt_encode_connack(&out, &(struct mqtt_connack){.version = MQTT_3_1_1, .reason = codes[i][0]});
        written(&out, BYTES(0x20, 2, 0, codes[i][1]));
    }
    buf_free(&out);
}

static void connack_of_5(void **unused)
{
    (void)unused;
    struct buf out = {0};
    mqtt_encode_connack(&out, &(struct mqtt_connack){
                                  .version = MQTT_5, .receive_maximum = 32, .keepalive_s = 300, .assigned_id = "ab"});
    written(&out, BYTES(0x20, 32, 0, 0, 29, 0x21, 0, 32, 0x24, 1, 0x25, 0, 0x27, 0, 2, 0, 0, 0x22, 0, 0, 0x28, 0, 0x29,
                        0, 0x2a, 0, 0x13, 1, 44, 0x12, 0, 2, 'a', 'b'));
    mqtt_encode_connack(&out, &(struct mqtt_connack){.version = MQTT_5, .reason = MQTT_NOT_AUTHORIZED});
    written(&out, BYTES(0x20, 3, 0, 0x87, 0));
    buf_free(&out);
}

static void publish_written(void **unused)
{
    (void)unused;
    struct buf out = {0};
    struct slice topic = BYTES('t');
    mqtt_encode_publish(&out, MQTT_3_1_1, topic, 258, "a/b", 200);
    written(&out, BYTES(0x32, 0xcd, 0x01, 0, 1, 't', 1, 2));
    mqtt_encode_publish(&out, MQTT_5, topic, 258, NULL, 2);
    written(&out, BYTES(0x32, 8, 0, 1, 't', 1, 2, 0));
    mqtt_encode_publish(&out, MQTT_5, topic, 258, "a/b", 2);
    written(&out, BYTES(0x32, 14, 0, 1, 't', 1, 2, 6, 0x03, 0, 3, 'a', '/', 'b'));
    mqtt_encode_publish(&out, MQTT_3_1_1, topic, 0, NULL, 2);
    written(&out, BYTES(0x30, 5, 0, 1, 't'));
    buf_free(&out);
}

static void short_packets_written(void **unused)
{
    (void)unused;
    struct buf out = {0};
    static const uint8_t reasons[] = {MQTT_GRANTED_QOS_1, MQTT_NOT_AUTHORIZED};
    mqtt_encode_puback(&out, MQTT_5, 258, MQTT_SUCCESS);
    written(&out, BYTES(0x40, 2, 1, 2));
    mqtt_encode_puback(&out, MQTT_5, 258, MQTT_NOT_AUTHORIZED);
    written(&out, BYTES(0x40, 3, 1, 2, 0x87));
    mqtt_encode_suback(&out, MQTT_3_1_1, 3, reasons, 2);
    written(&out, BYTES(0x90, 4, 0, 3, 1, 0x80));
    mqtt_encode_suback(&out, MQTT_5, 3, reasons, 2);
    written(&out, BYTES(0x90, 5, 0, 3, 0, 1, 0x87));
    mqtt_encode_unsuback(&out, MQTT_3_1_1, 3, reasons, 2);
    written(&out, BYTES(0xb0, 2, 0, 3));
    mqtt_encode_unsuback(&out, MQTT_5, 3, reasons, 2);
    written(&out, BYTES(0xb0, 5, 0, 3, 0, 1, 0x87));
    mqtt_encode_pingresp(&out);
    written(&out, BYTES(0xd0, 0));
    mqtt_encode_disconnect(&out, MQTT_5, MQTT_SERVER_SHUTTING_DOWN);
    written(&out, BYTES(0xe0, 1, 0x8b));
    mqtt_encode_disconnect(&out, MQTT_3_1_1, MQTT_SERVER_SHUTTING_DOWN);
    assert_int_equal(buf_len(&out), 0);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connect_of_3_1_1),
        cmocka_unit_test(connect_of_5_with_will_and_properties),
        cmocka_unit_test(a_connect_that_breaks_the_rules_is_refused),
        cmocka_unit_test(properties_have_their_rules),
        cmocka_unit_test(text_is_utf8),
        cmocka_unit_test(publish_of_both_versions),
        cmocka_unit_test(a_publish_that_breaks_the_rules_is_refused),
        cmocka_unit_test(puback_disconnect_ping_auth),
        cmocka_unit_test(subscriptions),
        cmocka_unit_test(subscriptions_that_break_the_rules_are_refused),
        cmocka_unit_test(packets_out_of_place_are_refused),
        cmocka_unit_test(the_remaining_length_is_bounded),
        cmocka_unit_test(packets_come_one_after_another),
        cmocka_unit_test(connack_of_3_1_1),
        cmocka_unit_test(connack_of_5),
        cmocka_unit_test(publish_written),
        cmocka_unit_test(short_packets_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
