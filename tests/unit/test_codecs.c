/* Command ids, inbox items, log entries and tokens: what goes in comes out; what is cut or damaged is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/ack_log.h"
#include "proto/command_id.h"
#include "proto/credential.h"
#include "proto/inbox.h"

static void a_command_id_names_its_byte(void **unused)
{
    (void)unused;
    const struct command_id ids[] = {{1, 1, 0}, {17, 3, 1023}, {(1ull << 48) - 1, (1u << 30) - 1, UINT32_MAX}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char text[COMMAND_ID_TEXT];
        struct command_id back;
        command_id_write(text, &ids[i]);
        assert_true(command_id_read(&back, text, sizeof text));
        assert_true(back.batch == ids[i].batch && back.tenant == ids[i].tenant && back.seq == ids[i].seq);
        assert_int_equal(text[14], '8'); /* version, RFC 9562 section 5.8 */
        assert_true(strchr("89ab", text[19]) != NULL);
    }
}

static void a_known_command_id_reads_as_ever(void **unused)
{
    (void)unused;
    struct command_id id;
    assert_true(command_id_read(&id, "00000000-0011-8000-8000-000300000007", 36));
    assert_true(id.batch == 17 && id.tenant == 3 && id.seq == 7);
    assert_true(command_id_read(&id, "00000000-00AB-8000-8000-0003000000FF", 36));
    assert_int_equal(id.seq, 255);
}

static void what_is_no_command_id_is_refused(void **unused)
{
    (void)unused;
    struct command_id id;
    const char *const bad[] = {
        "00000000-0011-8000-8000-00030000000",  "00000000-0011-8000-8000-0003000000077",
        "00000000-0011-4000-8000-000300000007", /* version 4 */
        "00000000-0011-8001-8000-000300000007", /* reserved bits */
        "00000000-0011-8000-c000-000300000007", /* variant */
        "00000000-0000-8000-8000-000300000007", /* batch 0 */
        "00000000-0011-8000-8000-000000000007", /* tenant 0 */
        "00000000x0011-8000-8000-000300000007", "0000000g-0011-8000-8000-000300000007",
        "0000000/-0011-8000-8000-000300000007", "0000000:-0011-8000-8000-000300000007",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(command_id_read(&id, bad[i], strlen(bad[i])));
}

static void inbox_items_come_back_in_order(void **unused)
{
    (void)unused;
    struct inbox_item few = {.kind = INBOX_ROUTE, .batch = 9, .tenant = 2, .block = 5}, many = few, got;
    struct inbox_item cancel = {.kind = INBOX_CANCEL, .batch = 1ull << 40};
    struct inbox_item takeover = {.kind = INBOX_TAKEOVER, .tenant = 7, .seq = 4242};
    struct inbox_item revoke = {.kind = INBOX_REVOKE, .tenant = 7, .seq = 1, .issued_before_ms = 1790000000000};
    few.slots[0] = 0x81;
    few.slots[127] = 0x80;
    memset(many.slots, 0x5f, sizeof many.slots);
    struct buf out = {0};
    inbox_put(&out, &few);
    size_t few_len = buf_len(&out);
    inbox_put(&out, &many);
    inbox_put(&out, &cancel);
    inbox_put(&out, &takeover);
    inbox_put(&out, &revoke);
    assert_int_equal(few_len, 1 + 8 + 4 + 4 + 2 + 3 * 2);
    struct slice s = buf_slice(&out);
    assert_int_equal(inbox_next(&s, &got), 1);
    assert_memory_equal(got.slots, few.slots, sizeof few.slots);
    assert_true(got.batch == 9 && got.tenant == 2 && got.block == 5);
    assert_int_equal(inbox_next(&s, &got), 1);
    assert_memory_equal(got.slots, many.slots, sizeof many.slots);
    assert_int_equal(inbox_next(&s, &got), 1);
    assert_true(got.kind == INBOX_CANCEL && got.batch == cancel.batch);
    assert_int_equal(inbox_next(&s, &got), 1);
    assert_true(got.kind == INBOX_TAKEOVER && got.tenant == 7 && got.seq == 4242);
    assert_int_equal(inbox_next(&s, &got), 1);
    assert_true(got.kind == INBOX_REVOKE && got.issued_before_ms == revoke.issued_before_ms);
    assert_int_equal(inbox_next(&s, &got), 0);
    buf_free(&out);
}

static void items_about_batches_come_back(void **unused)
{
    (void)unused;
    struct inbox_item got,
        items[] = {{.kind = INBOX_RELEASE, .batch = 9, .number = 1ull << 45, .tenant = 2, .block = 5},
                   {.kind = INBOX_HOLD, .batch = 1ull << 40, .number = UINT64_MAX},
                   {.kind = INBOX_GATE, .number = 77},
                   {.kind = INBOX_SPEC, .batch = 9, .spec = {(const uint8_t *)"told", 4}},
                   {.kind = INBOX_SPEC, .batch = UINT64_MAX}};
    struct buf out = {0};
    items[0].slots[9] = 0x12;
    for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        inbox_put(&out, &items[i]);
    struct slice s = buf_slice(&out);
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        assert_int_equal(inbox_next(&s, &got), 1);
        assert_true(got.kind == items[i].kind && got.batch == items[i].batch && got.number == items[i].number);
        assert_true(got.tenant == items[i].tenant && got.block == items[i].block);
        assert_memory_equal(got.slots, items[i].slots, sizeof got.slots);
        assert_int_equal(got.spec.len, items[i].spec.len);
        if (got.spec.len)
            assert_memory_equal(got.spec.data, items[i].spec.data, got.spec.len);
    }
    assert_int_equal(inbox_next(&s, &got), 0);
    buf_free(&out);
}

static void a_cut_inbox_entry_is_refused(void **unused)
{
    (void)unused;
    struct inbox_item got;
    for (enum inbox_kind kind = INBOX_ROUTE; kind <= INBOX_SPEC; kind++) {
        struct inbox_item item = {
            .kind = kind, .batch = 9, .tenant = 2, .block = 5, .spec = {(const uint8_t *)"told", 4}};
        struct buf out = {0};
        item.slots[3] = 0x11;
        inbox_put(&out, &item);
        for (size_t n = 1; n < buf_len(&out); n++) {
            struct slice s = {out.data, n};
            assert_int_equal(inbox_next(&s, &got), -1);
        }
        buf_free(&out);
    }
    struct inbox_item item = {.kind = INBOX_ROUTE, .batch = 9, .tenant = 2, .block = 5};
    item.slots[3] = 0x11;
    struct buf out = {0};
    inbox_put(&out, &item);
    out.data[0] = 99;
    struct slice s = buf_slice(&out);
    assert_int_equal(inbox_next(&s, &got), -1);
    buf_free(&out);
}

static void log_groups_come_back(void **unused)
{
    (void)unused;
    struct buf out = {0};
    ack_log_put_group(&out, 17, 3, 2);
    ack_log_put_entry(&out, 300000, 0x15);
    ack_log_put_entry(&out, 0, 0xf6);
    ack_log_put_group(&out, 18, 3, 0);
    assert_int_equal(buf_len(&out), 2 * ACK_LOG_GROUP + 2 * ACK_LOG_ENTRY);
    struct ack_log_group g;
    struct slice s = buf_slice(&out);
    assert_int_equal(ack_log_next(&s, &g), 1);
    assert_true(g.batch == 17 && g.tenant == 3 && g.count == 2);
    assert_true(ack_log_seq(&g, 0) == 300000 && ack_log_state(&g, 0) == 0x15);
    assert_true(ack_log_seq(&g, 1) == 0 && ack_log_state(&g, 1) == 0xf6);
    assert_int_equal(ack_log_next(&s, &g), 1);
    assert_int_equal(g.count, 0);
    assert_int_equal(ack_log_next(&s, &g), 0);
    for (size_t n = 1; n < ACK_LOG_GROUP + 2 * ACK_LOG_ENTRY; n++) {
        s = (struct slice){out.data, n};
        assert_int_equal(ack_log_next(&s, &g), -1);
    }
    store_u32le(out.data + 12, UINT32_MAX); /* a count that the bytes do not hold */
    s = buf_slice(&out);
    assert_int_equal(ack_log_next(&s, &g), -1);
    buf_free(&out);
}

static const uint8_t secret[CREDENTIAL_SECRET_BYTES] = "an example of thirty-two bytes.";

static void a_token_works_for_its_device_only(void **unused)
{
    (void)unused;
    struct credential c = {1, 2, 3, 1790000000000, 1890000000000}, back;
    char token[CREDENTIAL_TOKEN_MAX];
    credential_sign(token, &c, "phone-1", secret);
    struct slice t = {(const uint8_t *)token, strlen(token)};
    assert_true(credential_parse(&back, t));
    assert_true(back.key_id == 1 && back.tenant == 2 && back.seq == 3);
    assert_true(back.issued_ms == c.issued_ms && back.expires_ms == c.expires_ms);
    assert_true(credential_verify(t, (struct slice){(const uint8_t *)"phone-1", 7}, secret));
    assert_false(credential_verify(t, (struct slice){(const uint8_t *)"phone-2", 7}, secret));
    assert_false(credential_verify(t, (struct slice){(const uint8_t *)"phone-1", 6}, secret));
    uint8_t other[CREDENTIAL_SECRET_BYTES] = {1};
    assert_false(credential_verify(t, (struct slice){(const uint8_t *)"phone-1", 7}, other));
}

static void a_damaged_token_is_refused(void **unused)
{
    (void)unused;
    struct credential c = {1, 2, 3, 4, 5}, back;
    char token[CREDENTIAL_TOKEN_MAX];
    credential_sign(token, &c, "phone-1", secret);
    size_t len = strlen(token);
    struct slice device = {(const uint8_t *)"phone-1", 7};
    for (size_t n = 0; n < len; n++)
        assert_false(credential_parse(&back, (struct slice){(const uint8_t *)token, n}));
    for (size_t i = 4; i < len; i++) {
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        assert_false(credential_verify((struct slice){(const uint8_t *)token, len}, device, secret));
        token[i] = was;
    }
    assert_true(credential_verify((struct slice){(const uint8_t *)token, len}, device, secret));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_id_names_its_byte),
        cmocka_unit_test(a_known_command_id_reads_as_ever),
        cmocka_unit_test(what_is_no_command_id_is_refused),
        cmocka_unit_test(inbox_items_come_back_in_order),
        cmocka_unit_test(items_about_batches_come_back),
        cmocka_unit_test(a_cut_inbox_entry_is_refused),
        cmocka_unit_test(log_groups_come_back),
        cmocka_unit_test(a_token_works_for_its_device_only),
        cmocka_unit_test(a_damaged_token_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
