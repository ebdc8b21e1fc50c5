/* The fleet's hand-written protobuf against protobuf-c: two independent codecs of one schema. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/fleet/payload.h"
#include "muster/v1/delivery.pb-c.h"

static char id_text[] = "0194f3a2-7b1c-8d2e-9f30-a1b2c3d4e5f6";
static const uint8_t id[UUID_BYTES] = {0x01, 0x94, 0xf3, 0xa2, 0x7b, 0x1c, 0x8d, 0x2e,
                                       0x9f, 0x30, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6};

static void test_uuid(void **state)
{
    (void)state;
    uint8_t parsed[UUID_BYTES];
    char text[UUID_TEXT];

    assert_true(uuid_parse((const uint8_t *)id_text, 36, parsed));
    assert_memory_equal(parsed, id, UUID_BYTES);
    uuid_write(parsed, text);
    assert_memory_equal(text, id_text, 36);
    assert_false(uuid_parse((const uint8_t *)id_text, 35, parsed));
    assert_false(uuid_parse((const uint8_t *)"0194f3a2-7b1c-8d2e-9f30-a1b2c3d4e5fg", 36, parsed));
    assert_false(uuid_parse((const uint8_t *)"0194f3a2x7b1c-8d2e-9f30-a1b2c3d4e5f6", 36, parsed));
}

static size_t pack_query(uint8_t *out)
{
    Google__Protobuf__Timestamp expires = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Muster__V1__QueryInformationCommand query = MUSTER__V1__QUERY_INFORMATION_COMMAND__INIT;
    Muster__V1__Command command = MUSTER__V1__COMMAND__INIT;
    Muster__V1__Delivery d = MUSTER__V1__DELIVERY__INIT;

    expires.seconds = 1900000000;
    expires.nanos = 5;
    command.query_information = &query;
    command.kind_case = MUSTER__V1__COMMAND__KIND_QUERY_INFORMATION;
    d.command_id = id_text;
    d.attempt = 3;
    d.expires_at = &expires;
    d.command = &command;
    return muster__v1__delivery__pack(&d, out);
}

static void test_delivery(void **state)
{
    (void)state;
    uint8_t packed[256];
    size_t len = pack_query(packed);
    struct delivery d;

    assert_true(delivery_read((struct slice){packed, len}, &d));
    assert_memory_equal(d.id, id, UUID_BYTES);
    assert_int_equal(d.attempt, 3);
    assert_int_equal(d.expires_s, 1900000000);
    assert_int_equal(d.wants, WANTS_INFORMATION);
}

/* Cut or spoilt anywhere it answers something, and reads nothing outside (the sanitizers say so). */
static void test_delivery_cut_and_spoilt(void **state)
{
    (void)state;
    uint8_t packed[256];
    size_t len = pack_query(packed);
    struct delivery d;

    for (size_t n = 0; n <= len; n++) {
        uint8_t *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, packed, n);
        bool whole = delivery_read((struct slice){copy, n}, &d);
        assert_true(n >= 38 || !whole);
        for (size_t i = 0; i < n; i++) {
            copy[i] ^= 0xff;
            (void)!delivery_read((struct slice){copy, n}, &d);
            copy[i] ^= 0xff;
        }
        free(copy);
    }
}

static void test_delivery_needs_an_id(void **state)
{
    (void)state;
    struct delivery d;

    assert_false(delivery_read((struct slice){(const uint8_t *)"\x10\x01", 2}, &d));
    assert_false(delivery_read((struct slice){(const uint8_t *)"\x0a\x03"
                                                               "abc",
                                              5},
                               &d));
}

static Muster__V1__Acknowledgement *written(const struct acknowledgement *a)
{
    struct buf out = {0};

    acknowledgement_write(&out, a);
    Muster__V1__Acknowledgement *read = muster__v1__acknowledgement__unpack(NULL, buf_len(&out), buf_head(&out));
    buf_free(&out);
    assert_non_null(read);
    return read;
}

static void test_information(void **state)
{
    (void)state;
    Muster__V1__Acknowledgement *a = written(&(struct acknowledgement){
        .id = id, .device = "phone-1", .outcome = OUTCOME_SUCCEEDED, .wants = WANTS_INFORMATION, .payload_bytes = 200});

    assert_string_equal(a->command_id, id_text);
    assert_int_equal(a->outcome, MUSTER__V1__OUTCOME__OUTCOME_SUCCEEDED);
    assert_string_equal(a->information->serial_number, "phone-1");
    assert_int_equal(a->information->n_items, 1);
    assert_string_equal(a->information->items[0]->key, "battery_level");
    assert_int_equal(a->payload.len, 200);
    muster__v1__acknowledgement__free_unpacked(a, NULL);
}

static void test_backup_and_failure(void **state)
{
    (void)state;
    Muster__V1__Acknowledgement *a = written(&(struct acknowledgement){
        .id = id, .device = "phone-1", .outcome = OUTCOME_SUCCEEDED, .wants = WANTS_BACKUP_REFERENCE});
    assert_memory_equal(a->backup_reference, "backup://simulated/phone-1/", 27);
    muster__v1__acknowledgement__free_unpacked(a, NULL);

    a = written(&(struct acknowledgement){.id = id, .device = "phone-1", .outcome = OUTCOME_FAILED});
    assert_int_equal(a->outcome, MUSTER__V1__OUTCOME__OUTCOME_FAILED);
    assert_int_equal(a->code, 5);
    assert_string_equal(a->text, "simulated failure");
    muster__v1__acknowledgement__free_unpacked(a, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uuid),
        cmocka_unit_test(test_delivery),
        cmocka_unit_test(test_delivery_cut_and_spoilt),
        cmocka_unit_test(test_delivery_needs_an_id),
        cmocka_unit_test(test_information),
        cmocka_unit_test(test_backup_and_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
