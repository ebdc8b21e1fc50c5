/* Deliveries and acknowledgements against the generated code: what we write it reads, what it writes we read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "muster/v1/command_service.pb-c.h"
#include "muster/v1/delivery.pb-c.h"
#include "proto/delivery.h"

#define RETRIED (1u << MUSTER__V1__OUTCOME__OUTCOME_FAILED | 1u << MUSTER__V1__OUTCOME__OUTCOME_REJECTED)
#define ID      "00000000-0011-8000-8000-000300000007"

static struct slice pack(const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *p = malloc(len + 1);
    assert_non_null(p);
    protobuf_c_message_pack(message, p);
    return (struct slice){p, len};
}

static Muster__V1__Delivery *deliver(struct slice command, int64_t expires_ms, unsigned attempt)
{
    struct buf out = {0};
    uint8_t *head = buf_reserve(&out, DELIVERY_HEAD);
    delivery_put_head(head, &(struct command_id){17, 3, 7}, attempt);
    buf_commit(&out, DELIVERY_HEAD);
    delivery_put_retried(&out, RETRIED);
    delivery_put_tail(&out, expires_ms, command);
    assert_false(out.failed);
    Muster__V1__Delivery *d = muster__v1__delivery__unpack(NULL, buf_len(&out), buf_head(&out));
    assert_non_null(d);
    buf_free(&out);
    return d;
}

static void a_delivery_is_what_the_schema_says(void **unused)
{
    (void)unused;
    Muster__V1__LockCommand lock = MUSTER__V1__LOCK_COMMAND__INIT;
    Muster__V1__Command command = MUSTER__V1__COMMAND__INIT;
    lock.message = (char *)"locked";
    command.kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
    command.lock = &lock;
    struct slice bytes = pack(&command.base);
    for (unsigned attempt = 1; attempt <= 15; attempt++) {
        Muster__V1__Delivery *d = deliver(bytes, 1700000000123, attempt);
        assert_string_equal(d->command_id, ID);
        assert_int_equal(d->attempt, attempt);
        assert_int_equal(d->expires_at->seconds, 1700000000);
        assert_int_equal(d->expires_at->nanos, 123000000);
        assert_string_equal(d->command->lock->message, "locked");
        assert_int_equal(d->n_retried, 2);
        assert_int_equal(d->retried[0], MUSTER__V1__OUTCOME__OUTCOME_FAILED);
        assert_int_equal(d->retried[1], MUSTER__V1__OUTCOME__OUTCOME_REJECTED);
        muster__v1__delivery__free_unpacked(d, NULL);
    }
    free((void *)(uintptr_t)bytes.data);
}

static void an_empty_command_is_there_all_the_same(void **unused)
{
    (void)unused;
    Muster__V1__Delivery *d = deliver((struct slice){(const uint8_t *)"", 0}, 5000, 1);
    assert_non_null(d->command);
    assert_int_equal(d->expires_at->nanos, 0);
    muster__v1__delivery__free_unpacked(d, NULL);
}

/* --- acknowledgements --------------------------------------------------------------------------------------------- */

static Muster__V1__Acknowledgement new_ack(void)
{
    Muster__V1__Acknowledgement a = MUSTER__V1__ACKNOWLEDGEMENT__INIT;
    a.command_id = (char *)ID;
    a.outcome = MUSTER__V1__OUTCOME__OUTCOME_SUCCEEDED;
    return a;
}

/* What acknowledgement_read says about `a`. */
static const char *judge(const Muster__V1__Acknowledgement *a)
{
    struct slice bytes = pack(&a->base);
    struct acknowledgement ack;
    const char *wrong = acknowledgement_read(&ack, bytes);
    free((void *)(uintptr_t)bytes.data);
    return wrong;
}

static void an_outcome_alone(void **unused)
{
    (void)unused;
    struct acknowledgement ack;
    Muster__V1__Acknowledgement a = new_ack();
    for (int outcome = 1; outcome <= 4; outcome++) {
        a.outcome = (Muster__V1__Outcome)outcome;
        struct slice bytes = pack(&a.base);
        assert_null(acknowledgement_read(&ack, bytes));
        assert_true(ack.id.batch == 17 && ack.id.tenant == 3 && ack.id.seq == 7 && ack.outcome == outcome);
        assert_false(acknowledgement_has_result(&ack));
        free((void *)(uintptr_t)bytes.data);
    }
}

static void all_that_a_device_can_say_becomes_a_result(void **unused)
{
    (void)unused;
    struct acknowledgement ack;
    struct buf out = {0};
    Muster__V1__DeviceInformation information = MUSTER__V1__DEVICE_INFORMATION__INIT;
    Muster__V1__DeviceInformation__ItemsEntry item = MUSTER__V1__DEVICE_INFORMATION__ITEMS_ENTRY__INIT;
    Muster__V1__DeviceInformation__ItemsEntry *items[] = {&item};
    Muster__V1__Acknowledgement a = new_ack();
    item.key = (char *)"battery_level";
    item.value = (char *)"0.81";
    information.os_version = (char *)"17.2.1";
    information.items = items;
    information.n_items = 1;
    a.code = -5;
    a.text = (char *)"text \xc3\xa9";
    a.information = &information;
    a.backup_reference = (char *)"ref";
    a.payload = (ProtobufCBinaryData){3, (uint8_t *)"\0\1\2"};
    struct slice bytes = pack(&a.base);
    assert_null(acknowledgement_read(&ack, bytes));
    assert_true(acknowledgement_has_result(&ack));
    acknowledgement_put_result(&out, &ack);
    Muster__V1__CommandResult *r = muster__v1__command_result__unpack(NULL, buf_len(&out), buf_head(&out));
    assert_non_null(r);
    assert_int_equal(r->code, -5);
    assert_string_equal(r->text, a.text);
    assert_string_equal(r->information->os_version, "17.2.1");
    assert_string_equal(r->information->items[0]->value, "0.81");
    assert_string_equal(r->backup_reference, "ref");
    assert_memory_equal(r->payload.data, "\0\1\2", 3);
    muster__v1__command_result__free_unpacked(r, NULL);
    buf_free(&out);
    free((void *)(uintptr_t)bytes.data);
}

static char *text_of(size_t len)
{
    char *s = malloc(len + 1);
    assert_non_null(s);
    memset(s, 'x', len);
    s[len] = '\0';
    return s;
}

static void what_is_too_long_is_refused(void **unused)
{
    (void)unused;
    for (int over = 0; over <= 1; over++) {
        char *text = text_of(ACKNOWLEDGEMENT_TEXT_MAX + (size_t)over);
        char *reference = text_of(ACKNOWLEDGEMENT_BACKUP_MAX + (size_t)over);
        char *payload = text_of(ACKNOWLEDGEMENT_PAYLOAD_MAX + (size_t)over);
        Muster__V1__Acknowledgement a = new_ack();
        a.text = text;
        assert_int_equal(judge(&a) != NULL, over);
        a = new_ack();
        a.backup_reference = reference;
        assert_int_equal(judge(&a) != NULL, over);
        a = new_ack();
        a.payload = (ProtobufCBinaryData){ACKNOWLEDGEMENT_PAYLOAD_MAX + (size_t)over, (uint8_t *)payload};
        assert_int_equal(judge(&a) != NULL, over);
        free(text);
        free(reference);
        free(payload);
    }
}

static void information_has_its_limits(void **unused)
{
    (void)unused;
    for (int over = 0; over <= 1; over++) {
        Muster__V1__DeviceInformation information = MUSTER__V1__DEVICE_INFORMATION__INIT;
        Muster__V1__DeviceInformation__ItemsEntry entry = MUSTER__V1__DEVICE_INFORMATION__ITEMS_ENTRY__INIT;
        Muster__V1__DeviceInformation__ItemsEntry *items[INFORMATION_ITEMS_MAX + 1];
        Muster__V1__Acknowledgement a = new_ack();
        char *value = text_of(INFORMATION_VALUE_MAX + (size_t)over), *os = text_of(INFORMATION_OS_MAX + (size_t)over);
        a.information = &information;
        information.os_version = os;
        assert_int_equal(judge(&a) != NULL, over);
        information.os_version = (char *)"";
        for (unsigned i = 0; i <= INFORMATION_ITEMS_MAX; i++)
            items[i] = &entry;
        information.items = items;
        information.n_items = INFORMATION_ITEMS_MAX + (size_t)over;
        assert_int_equal(judge(&a) != NULL, over);
        information.n_items = 1;
        entry.value = value;
        assert_int_equal(judge(&a) != NULL, over);
        entry.value = (char *)(over ? "\xff" : "\xc3\xa9");
        assert_int_equal(judge(&a) != NULL, over);
        free(value);
        free(os);
    }
}

static void what_is_no_acknowledgement_is_refused(void **unused)
{
    (void)unused;
    Muster__V1__Acknowledgement a = new_ack();
    struct acknowledgement ack;
    a.outcome = MUSTER__V1__OUTCOME__OUTCOME_UNSPECIFIED;
    assert_non_null(judge(&a));
    a.outcome = (Muster__V1__Outcome)5;
    assert_non_null(judge(&a));
    a = new_ack();
    a.command_id = (char *)"17";
    assert_non_null(judge(&a));
    a = new_ack();
    a.text = (char *)"\xff";
    assert_non_null(judge(&a));
    assert_non_null(acknowledgement_read(&ack, (struct slice){(const uint8_t *)"", 0}));
    assert_non_null(acknowledgement_read(&ack, (struct slice){(const uint8_t *)"{}", 2}));
}

static void cut_anywhere_it_is_refused_or_still_sane(void **unused)
{
    (void)unused;
    Muster__V1__DeviceInformation information = MUSTER__V1__DEVICE_INFORMATION__INIT;
    Muster__V1__Acknowledgement a = new_ack();
    struct acknowledgement ack;
    information.model = (char *)"model";
    a.text = (char *)"text";
    a.information = &information;
    struct slice whole = pack(&a.base);
    for (size_t len = 0; len < whole.len; len++) {
        uint8_t *part = malloc(len + 1);
        assert_non_null(part);
        memcpy(part, whole.data, len);
        if (!acknowledgement_read(&ack, (struct slice){part, len}))
            assert_true(len >= 2 + COMMAND_ID_TEXT + 2 && ack.id.seq == 7);
        free(part);
    }
    free((void *)(uintptr_t)whole.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_delivery_is_what_the_schema_says),
        cmocka_unit_test(an_empty_command_is_there_all_the_same),
        cmocka_unit_test(an_outcome_alone),
        cmocka_unit_test(all_that_a_device_can_say_becomes_a_result),
        cmocka_unit_test(what_is_too_long_is_refused),
        cmocka_unit_test(information_has_its_limits),
        cmocka_unit_test(what_is_no_acknowledgement_is_refused),
        cmocka_unit_test(cut_anywhere_it_is_refused_or_still_sane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
