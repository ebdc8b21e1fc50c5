/* The simulated device's MQTT: what it writes is what the specification says, what it reads it reads at every cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "bench/fleet/mqtt.h"

static void test_connect(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0x10, 0x15, 0,   4,   'M', 'Q', 'T', 'T', 4, 0xc2, 1,  44,
                                       0,    2,    'd', '1', 0,   2,   'd', '1', 0, 1,    't'};
    const struct mqtt_login login = {.version = 4, .device = "d1", .password = "t", .keepalive_s = 300};
    struct buf out = {0};

    mqtt_put_connect(&out, &login);
    assert_int_equal(buf_len(&out), sizeof expected);
    assert_memory_equal(buf_head(&out), expected, sizeof expected);
    buf_free(&out);
}

static void test_connect_5_without_password(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0x10, 15, 0, 4, 'M', 'Q', 'T', 'T', 5, 0x02, 0, 0, 0, 0, 2, 'd', '1'};
    const struct mqtt_login login = {.version = 5, .device = "d1"};
    const struct mqtt_login kept = {.version = 4, .device = "d1", .keep_session = true};
    struct buf out = {0};

    mqtt_put_connect(&out, &login);
    assert_int_equal(buf_len(&out), sizeof expected);
    assert_memory_equal(buf_head(&out), expected, sizeof expected);
    buf_reset(&out);
    mqtt_put_connect(&out, &kept);
    assert_int_equal(buf_head(&out)[9], 0); /* flags */
    buf_free(&out);
}

static void test_subscribe(void **state)
{
    (void)state;
    static const uint8_t head[] = {0x82, 24, 0, 7, 0, 19};
    struct buf out = {0};

    mqtt_put_subscribe(&out, 4, 7, (struct mqtt_topic){"d1", "commands"}, 1);
    assert_int_equal(buf_len(&out), 26);
    assert_memory_equal(buf_head(&out), head, sizeof head);
    assert_memory_equal(buf_head(&out) + 6, "devices/d1/commands\1", 20);
    buf_reset(&out);
    mqtt_put_subscribe(&out, 5, 7, (struct mqtt_topic){"+", "acks"}, 0);
    assert_int_equal(buf_len(&out), 22);
    assert_memory_equal(buf_head(&out),
                        "\x82\x14\0\7\0\0\x0e"
                        "devices/+/acks",
                        22);
    buf_free(&out);
}

static const struct mqtt_topic acks_of_d1 = {"d1", "acks"};

/* An acknowledgement, read back as the PUBLISH it is, in both versions and over the one-byte length. */
static void test_ack_round_trip(void **state)
{
    (void)state;
    uint8_t payload[300];
    struct mqtt_packet p;

    memset(payload, 'y', sizeof payload);
    for (int version = 4; version <= 5; version++) {
        struct buf out = {0};
        mqtt_put_publish(&out, version, 513, acks_of_d1, (struct slice){payload, sizeof payload});
        struct slice in = buf_slice(&out);
        assert_int_equal(mqtt_read(&in, version, &p), MQTT_DONE);
        assert_int_equal(in.len, 0);
        assert_int_equal(p.type, MQTT_PUBLISH);
        assert_int_equal(p.qos, 1);
        assert_int_equal(p.packet_id, 513);
        assert_int_equal(p.topic.len, 15);
        assert_memory_equal(p.topic.data, "devices/d1/acks", 15);
        assert_int_equal(p.payload.len, sizeof payload);
        buf_free(&out);
    }
}

static void test_qos_0(void **state)
{
    (void)state;
    struct mqtt_packet p;

    for (int version = 4; version <= 5; version++) {
        struct buf out = {0};
        mqtt_put_publish(&out, version, 0, acks_of_d1, (struct slice){(const uint8_t *)"xy", 2});
        struct slice in = buf_slice(&out);
        assert_int_equal(mqtt_read(&in, version, &p), MQTT_DONE);
        assert_int_equal(in.len, 0);
        assert_int_equal(p.qos, 0);
        assert_int_equal(p.packet_id, 0);
        assert_int_equal(p.payload.len, 2);
        buf_free(&out);
    }
}

static void test_every_cut(void **state)
{
    (void)state;
    struct buf out = {0};
    struct mqtt_packet p;

    mqtt_put_publish(&out, 5, 1, acks_of_d1, (struct slice){(const uint8_t *)"payload", 7});
    for (size_t n = 0; n < buf_len(&out); n++) {
        struct slice in = {buf_head(&out), n};
        assert_int_equal(mqtt_read(&in, 5, &p), MQTT_MORE);
        assert_int_equal(in.len, n);
    }
    buf_free(&out);
}

static enum mqtt_result read_bytes(const void *bytes, size_t len, int version, struct mqtt_packet *p)
{
    struct slice in = {bytes, len};
    return mqtt_read(&in, version, p);
}

static void test_connack(void **state)
{
    (void)state;
    struct mqtt_packet p;

    assert_int_equal(read_bytes("\x20\x02\x00\x05", 4, 4, &p), MQTT_DONE);
    assert_int_equal(p.reason, 5);
    /* Assigned client id "a", receive maximum 10, user property "k": "v". */
    static const uint8_t five[] = {0x20, 17, 0, 0, 14, 0x12, 0, 1, 'a', 0x21, 0, 10, 0x26, 0, 1, 'k', 0, 1, 'v'};
    assert_int_equal(read_bytes(five, sizeof five, 5, &p), MQTT_DONE);
    assert_int_equal(p.receive_maximum, 10);
}

static void test_puback(void **state)
{
    (void)state;
    struct mqtt_packet p;

    assert_int_equal(read_bytes("\x40\x02\x01\x02", 4, 4, &p), MQTT_DONE);
    assert_int_equal(p.packet_id, 0x102);
    assert_int_equal(read_bytes("\x40\x04\x01\x02\x97\x00", 6, 5, &p), MQTT_DONE);
    assert_int_equal(p.reason, 0x97);
}

static void test_bad(void **state)
{
    (void)state;
    struct mqtt_packet p;

    assert_int_equal(read_bytes("\x30\xff\xff\xff\xff\x01", 6, 4, &p), MQTT_BAD);  /* length of five bytes */
    assert_int_equal(read_bytes("\x30\xff\xff\x7f", 4, 4, &p), MQTT_BAD);          /* longer than a device takes */
    assert_int_equal(read_bytes("\x00\x00", 2, 4, &p), MQTT_BAD);                  /* type 0 */
    assert_int_equal(read_bytes("\xe0\x00", 2, 4, &p), MQTT_BAD);                  /* DISCONNECT in 3.1.1 */
    assert_int_equal(read_bytes("\x32\x03\x00\x05x", 5, 4, &p), MQTT_BAD);         /* topic past the end */
    assert_int_equal(read_bytes("\x32\x05\x00\x01x\x00\x00", 7, 4, &p), MQTT_BAD); /* packet id 0 */
    assert_int_equal(read_bytes("\x34\x05\x00\x01x\x00\x01", 7, 4, &p), MQTT_BAD); /* QoS 2 */
    assert_int_equal(read_bytes("\x20\x06\x00\x00\x03\x21\x00\x00", 8, 5, &p), MQTT_BAD); /* receive maximum 0 */
    assert_int_equal(read_bytes("\x20\x04\x00\x00\x01\x7f", 6, 5, &p), MQTT_BAD);         /* unknown property */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connect),   cmocka_unit_test(test_connect_5_without_password),
        cmocka_unit_test(test_subscribe), cmocka_unit_test(test_ack_round_trip),
        cmocka_unit_test(test_qos_0),     cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_connack),   cmocka_unit_test(test_puback),
        cmocka_unit_test(test_bad),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
