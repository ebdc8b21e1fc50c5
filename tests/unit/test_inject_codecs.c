/* Every codec and pure module with its nth allocation failing, n = 0, 1, 2 … : it says that it failed, or has done the
 * same as ever; it never does half of it, and leaves nothing behind (LeakSanitizer is asked at the end). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/fold.h"
#include "dispatcher/open_batch.h"
#include "dispatcher/page_token.h"
#include "dispatcher/shares.h"
#include "dispatcher/sorted_ids.h"
#include "dispatcher/target_set.h"
#include "lib/base/arena.h"
#include "lib/base/config.h"
#include "lib/base/grpc_metadata.h"
#include "lib/base/log.h"
#include "lib/base/metrics.h"
#include "lib/base/tls_ticket.h"
#include "lib/store/db_batch.h"
#include "lib/store/pg_internal.h"
#include "lib/store/redis_internal.h"
#include "muster/v1/command_service.pb-c.h"
#include "proto/ack_log.h"
#include "proto/command_status.h"
#include "proto/delivery.h"
#include "proto/grpc_framing.h"
#include "proto/inbox.h"
#include "proto/json.h"
#include "proto/mqtt.h"
#include "proto/status.h"
#include "tests/unit/inject.h"
#include "workers/pubacks.h"
#include "workers/session.h"
#include "workers/session_table.h"

/* What a run has come to, and what it comes to when nothing fails; of its own memory, so that keeping it can't fail. */
#define ROOM 65536
struct outcome {
    bool ok;
    size_t len;
    uint8_t bytes[ROOM];
};

static struct outcome undisturbed, disturbed;

static void keep(struct outcome *o, const void *data, size_t len)
{
    assert_true(o->len + len <= ROOM);
    if (len > 0)
        memcpy(o->bytes + o->len, data, len);
    o->len += len;
}

/* Keeps and frees. */
static void keep_buf(struct outcome *o, struct buf *b)
{
    o->ok = !b->failed;
    if (o->ok)
        keep(o, buf_slice(b).data, buf_len(b));
    buf_free(b);
}

static const struct slice hello = {(const uint8_t *)"hello", 5};
static const struct command_id some_id = {42, 7, 3000};

/* --- proto ----------------------------------------------------------------------------------------------------------
 */

static void run_json(struct outcome *o)
{
    static const char text[] =
        "{\"requestId\":\"r\",\"command\":{\"restrictFunctions\":{\"restrictions\":[{\"function\":\"FUNCTION_CAMERA\"}]"
        "}},"
        "\"target\":{\"devices\":{\"ids\":[\"a\",\"b\"]}},\"expiresAt\":\"2026-01-02T03:04:05Z\"}";
    char error[128];
    ProtobufCMessage *m =
        json_to_message(&muster__v1__submit_batch_request__descriptor, text, sizeof text - 1, error, sizeof error);
    char *again = m ? json_from_message(m, true) : NULL;
    if (!m)
        assert_true(error[0]);
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
    o->ok = again != NULL;
    if (again)
        keep(o, again, strlen(again));
    free(again);
}

static void run_messages(struct outcome *o)
{
    struct buf b = {0};
    struct acknowledgement ack = {.id = some_id, .outcome = 1, .text = hello, .payload = hello};
    struct inbox_item item = {.kind = INBOX_ROUTE, .batch = 42, .tenant = 7, .slots = {1, 2, 3}};
    delivery_put_tail(&b, 1700000000000, hello);
    acknowledgement_put_result(&b, &ack);
    inbox_put(&b, &item);
    ack_log_put_group(&b, 42, 7, 1);
    ack_log_put_entry(&b, 3, 4);
    command_status_put(&b, 1, &(struct command_status){.id = some_id, .device_id = hello, .state = 5});
    buf_printf(&b, "%0200d", 1);
    keep_buf(o, &b);
}

static void run_mqtt(struct outcome *o)
{
    struct buf b = {0};
    mqtt_encode_connack(&b, &(struct mqtt_connack){.version = MQTT_5, .receive_maximum = 9, .assigned_id = "x"});
    mqtt_encode_publish(&b, MQTT_5, hello, 3, "application/json", 5);
    buf_put(&b, hello.data, hello.len);
    mqtt_encode_puback(&b, MQTT_5, 3, 0x87);
    mqtt_encode_suback(&b, MQTT_3_1_1, 3, (const uint8_t *)"\1\2", 2);
    mqtt_encode_unsuback(&b, MQTT_5, 3, (const uint8_t *)"\1\2", 2);
    mqtt_encode_pingresp(&b);
    mqtt_encode_disconnect(&b, MQTT_5, 0x8b);
    keep_buf(o, &b);
}

static void run_status(struct outcome *o)
{
    struct status st = {0}, back;
    struct buf b = {0};
    status_violation(&st, "field", "is wrong");
    status_metadata(&st, "key", "value");
    st.retry_ms = 1000;
    status_encode(&st, &b);
    o->ok = !b.failed && status_decode(&back, buf_slice(&b));
    if (o->ok) {
        assert_int_equal(back.code, STATUS_INVALID_ARGUMENT);
        keep(o, back.message, strlen(back.message));
        keep(o, back.violations[0].field, strlen(back.violations[0].field));
    }
    buf_free(&b);
}

static void run_framing(struct outcome *o)
{
    static const uint8_t wire[] = "\0\0\0\0\5hello\0\0\0\1\0";
    struct grpc_deframer d = {.max = 1000};
    struct slice in = {wire, 10 + 5 + 256};
    uint8_t both[10 + 5 + 256] = {0};
    memcpy(both, wire, 15);
    in.data = both;
    o->ok = true;
    while (in.len > 0 && o->ok) {
        enum grpc_deframe result = grpc_deframe(&d, &in);
        o->ok = result == GRPC_DEFRAME_DONE;
        if (!o->ok)
            assert_true(result == GRPC_DEFRAME_BAD && d.code == STATUS_RESOURCE_EXHAUSTED);
        keep(o, buf_slice(&d.body).data, o->ok ? buf_len(&d.body) : 0);
        grpc_deframer_next(&d);
    }
    buf_free(&d.body);
    struct buf b = {0};
    grpc_percent_encode(&b, "caf\xC3\xA9");
    grpc_base64_encode(&b, "hello", 5);
    grpc_frame_bytes(&b, hello);
    if (b.failed)
        o->ok = false;
    else if (o->ok)
        keep(o, buf_slice(&b).data, buf_len(&b));
    buf_free(&b);
}

static void run_metadata(struct outcome *o)
{
    struct arena arena = {0};
    struct grpc_metadata m = {0};
    struct status st = {0};
    status_violation(&st, "field", "is wrong");
    grpc_metadata_add(&m, &arena, "x-bin", "\1\2\3", 3);
    grpc_metadata_add(&m, &arena, "key", "value", 5);
    grpc_metadata_status(&m, &arena, &st);
    const nghttp2_nv *nv = grpc_metadata_nv(&m, &arena);
    /* Lost entries are no failure of the call; those that are there are whole. */
    o->ok = nv && m.count == 5;
    for (size_t i = 0; nv && i < m.count; i++) {
        assert_non_null(nv[i].name);
        assert_non_null(nv[i].value);
        if (o->ok)
            keep(o, nv[i].value, nv[i].valuelen);
    }
    arena_free(&arena);
}

/* --- lib ---------------------------------------------------------------------------------------------------------- */

static void run_config(struct outcome *o)
{
    char *name, error[CONFIG_ERROR_MAX];
    int64_t count;
    struct config_option options[] = {
        {"name", CONFIG_STRING, &name, "a default", 0, 0, ""}, {"count", CONFIG_INT, &count, "1", 0, 9, ""}, {0}};
    char *argv[] = {(char *)"test", (char *)"--name=x", (char *)"--count", (char *)"7"};
    o->ok = config_read("test", options, 4, argv, 0, error) == 4;
    if (o->ok)
        keep(o, name, strlen(name));
    else
        assert_non_null(strstr(error, "out of memory"));
    config_free(options);
}

static void run_addresses(struct outcome *o)
{
    static const char *const urls[] = {"redis://user:password@host:1/2", "unix:///path?db=3"};
    struct redis_address a;
    o->ok = true;
    for (int i = 0; i < 2 && o->ok; i++) {
        o->ok = redis_address_parse(&a, urls[i]);
        if (o->ok)
            keep(o, a.path ? a.path : a.password, 5);
        redis_address_free(&a);
    }
}

static void run_scripts(struct outcome *o)
{
    struct redis_scripts scripts;
    struct buf b = {0};
    o->ok = redis_scripts_make(&scripts);
    if (o->ok) {
        keep(o, redis_scripts_find(&scripts, "route")->hash, SCRIPT_HASH);
        redis_put_command(&b, 1, &hello);
        keep_buf(o, &b);
    }
    redis_scripts_free(&scripts);
}

static void run_txn(struct outcome *o)
{
    static const struct pg_stmt stmt = {"name", "SELECT $1"};
    static const int64_t numbers[40];
    static const char *const texts[] = {"a", "b"};
    struct pg_txn *txn = pg_txn_new(NULL, PG_ANY_LANE);
    for (int i = 0; i < 12; i++) {
        pg_txn_add(txn, &stmt);
        pg_put_int8_array(txn, numbers, 40);
        pg_put_text_array(txn, texts, 2);
        pg_put_bytea_array(txn, &hello, 1);
        pg_put_text(txn, "text");
        pg_put_null(txn);
    }
    o->ok = txn && !txn->failed;
    if (o->ok) {
        assert_int_equal(txn->call_count, 12);
        assert_int_equal(txn->param_count, 60);
        keep(o, buf_head(&txn->data), buf_len(&txn->data));
    }
    pg_txn_free(&txn);
}

static void run_accept_devices(struct outcome *o)
{
    struct db_accept batch = {
        .tenant = 7, .request_id = "r", .description = "d", .command = hello, .supersede_key = ""};
    const struct db_accept *batches[] = {&batch, &batch};
    const char *devices[] = {"a", "b"};
    struct pg_txn *txn = pg_txn_new(NULL, PG_ANY_LANE);
    bool made = txn && db_batch_accept_devices(txn, batches, devices, 2);
    o->ok = made && !txn->failed;
    if (o->ok)
        keep(o, buf_head(&txn->data), buf_len(&txn->data));
    pg_txn_free(&txn);
}

static void run_metrics(struct outcome *o)
{
    static const uint64_t value = 5;
    static const struct histogram h;
    struct metrics *m = metrics_new("test");
    struct buf b = {0};
    if (!m)
        return;
    for (int i = 0; i < 40; i++)
        metrics_add(m, METRIC_COUNTER, "things_total", NULL, "Things.", &value);
    metrics_add_histogram(m, "seconds", "Time.", &h);
    metrics_write(m, &b);
    keep_buf(o, &b);
    /* One that can't be kept is said in the log, and left out. */
    o->ok = o->ok && (undisturbed.len == 0 || o->len == undisturbed.len);
    metrics_free(&m);
}

static void run_tickets(struct outcome *o)
{
    struct tls_ticket_key key = {{1}, {2}, {3}};
    inject_hold(); /* the context is another test's */
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    inject_go_on();
    struct tls_tickets *tickets = tls_tickets_new(ctx);
    o->ok = tickets != NULL;
    if (tickets)
        tls_tickets_set(tickets, &key, 1, 0);
    SSL_CTX_free(ctx);
    tls_tickets_free(&tickets);
}

/* --- dispatcher and worker ---------------------------------------------------------------------------------------- */

static void run_targets(struct outcome *o)
{
    static const char *const ids[] = {"d-3", "d-1", "d-2", "d-1"};
    static const int64_t seqs[] = {5000, 3, -1, 1024, 3};
    const char *missing[SORTED_IDS_MISSING_KEPT];
    const int64_t found[] = {1, -1, 3};
    struct sorted_ids list = {0};
    struct target_set set = {0};
    uint32_t kept[4];
    o->ok = sorted_ids_fill(&list, ids, 4);
    if (o->ok)
        keep(o, &(size_t){sorted_ids_missing(&list, found, missing)}, sizeof(size_t));
    sorted_ids_free(&list);
    target_set_fill(&set, seqs, 5);
    o->ok = o->ok && !set.failed;
    if (o->ok)
        keep(o, &(uint32_t){target_set_count(&set)}, sizeof(uint32_t));
    target_set_free(&set);
    size_t n = id_set_unique(ids, 4, false, kept);
    o->ok = o->ok && n == 3;
    assert_true(n == 3 || n == SIZE_MAX);
}

static void run_page_token(struct outcome *o)
{
    struct page_filter filter = page_filter_new("/m.S/List", 7);
    struct page_token token;
    struct status st = {0};
    char text[PAGE_TOKEN_MAX];
    page_token_write(text, &filter, 17, "name");
    page_token_read(&token, &st, &filter, "page_token", text, -1);
    o->ok = st.code == STATUS_OK;
    assert_true(!o->ok || (token.after == 17 && strcmp(token.after_name, "name") == 0));
}

static void keep_row(void *arg, int64_t at_ms, struct slice entries)
{
    keep(arg, &at_ms, sizeof at_ms);
    keep(arg, entries.data, entries.len);
}

static void run_open_set(struct outcome *o)
{
    static struct open_set set;
    struct fold_log log;
    struct buf entries = {0}, unknown = {0}, string = {0};
    inject_hold(); /* what the log says is the test's */
    ack_log_put_group(&entries, 1, 7, 3);
    for (uint32_t i = 0; i < 3; i++)
        ack_log_put_entry(&entries, i, i == 2 ? STATE_SENT : STATE_SUCCEEDED);
    ack_log_put_group(&entries, 99, 7, 0);
    inject_go_on();
    open_set_init(&set);
    fold_init(&log);
    struct open_batch *batch = open_set_add(&set, 1, 2, 2);
    o->ok = false;
    if (batch) {
        batch->tenant = 7;
        o->ok = open_batch_put(&set, batch, 0, 0, (struct slice){(const uint8_t *)"\7", 1}, (struct slice){0}) &&
                open_batch_put(&set, batch, 1, 8, (struct slice){(const uint8_t *)"\1", 1},
                               (struct slice){(const uint8_t *)"\5\0\0\0\0\0\0\0", 8});
    }
    fold_unknown(&set, buf_slice(&entries), &unknown);
    if (o->ok) {
        assert_true(fold_take(&log, &set, 3, 1, 1000, buf_slice(&entries), 1000));
        assert_true(fold_take(&log, &set, 4, 1, 1100, buf_slice(&entries), 1100));
        open_block_string(&batch->blocks[0], &string);
        o->ok = !set.failed && !log.failed && fold_compact(&log, 5, 1, keep_row, o);
    }
    o->ok = o->ok && !set.failed && !log.failed && !unknown.failed && !string.failed;
    if (o->ok) {
        assert_int_equal(set.remaining, 1);
        assert_int_equal(batch->unsettled, 1);
        keep(o, buf_head(&string), buf_len(&string));
    }
    fold_free(&log);
    open_set_free(&set);
    buf_free(&entries);
    buf_free(&unknown);
    buf_free(&string);
}

static void run_session_table(struct outcome *o)
{
    static struct session sessions[3000];
    struct session_table *t = session_table_new();
    o->ok = t != NULL;
    if (!t)
        return;
    for (uint32_t seq = 0; seq < 3000 && o->ok; seq++) {
        struct session *s = &sessions[seq];
        size_t before = session_table_count(t);
        *s = (struct session){.tenant = 7, .seq = seq};
        o->ok = session_table_put(t, s);
        assert_int_equal(session_table_count(t), before + o->ok);
        assert_ptr_equal(session_table_get(t, 7, seq), o->ok ? s : NULL);
    }
    session_table_free(&t);
}

static void run_shares(struct outcome *o)
{
    struct shares shares;
    struct share entries[3];
    unsigned n = 0;
    shares_init(&shares, &(struct shares_limits){8, 100, 1, 8});
    while (n < 3 && (o->ok = shares_add(&shares, &entries[n], 7 + n / 2, 1, 0)))
        n++;
    assert_int_equal(shares.count, n);
    assert_int_equal(shares.tenants, (n + 1) / 2);
    while (n > 0) {
        shares_take(&shares, &entries[--n]);
        shares_put_back(&shares, &entries[n]);
        shares_remove(&shares, &entries[n]);
    }
    assert_int_equal(shares.count + shares.tenants, 0);
}

static void run_pubacks(struct outcome *o)
{
    struct pubacks p = {0};
    uint16_t token, n = 0;
    while (n < 5 && (o->ok = pubacks_add(&p, (uint16_t)(n + 1), &token)))
        n++;
    assert_int_equal(p.count, n);
    assert_int_equal(p.named, n);
    pubacks_free(&p);
}

/* --- all of them -------------------------------------------------------------------------------------------------- */

struct codec {
    void (*run)(struct outcome *o);
};

static void once(void *arg, enum injection what)
{
    const struct codec *codec = arg;
    (void)what;
    disturbed = (struct outcome){0};
    codec->run(&disturbed);
    inject_hold();
    if (disturbed.ok) {
        assert_int_equal(disturbed.len, undisturbed.len);
        assert_memory_equal(disturbed.bytes, undisturbed.bytes, undisturbed.len);
    }
    if (!inject_happened())
        assert_true(disturbed.ok);
    inject_go_on();
}

static void disturb(void **state)
{
    struct codec *codec = *state;
    undisturbed = (struct outcome){0};
    codec->run(&undisturbed);
    assert_true(undisturbed.ok);
    assert_true(inject_each(INJECT_MEMORY, false, 1, once, codec) > 0);
    assert_true(inject_each(INJECT_MEMORY, true, 1, once, codec) > 0);
}

#define CODEC(name)                                                                                                    \
    {                                                                                                                  \
#name "_without_memory", disturb, NULL, NULL, &(struct codec)                                                  \
        {                                                                                                              \
            .run = run_##name                                                                                          \
        }                                                                                                              \
    }

int main(void)
{
    inject_init();
    log_init("test_inject_codecs", (enum log_level)(LOG_ERROR + 1));
    const struct CMUnitTest tests[] = {
        CODEC(json),           CODEC(messages),      CODEC(mqtt),      CODEC(status),  CODEC(framing),
        CODEC(metadata),       CODEC(config),        CODEC(addresses), CODEC(scripts), CODEC(txn),
        CODEC(accept_devices), CODEC(metrics),       CODEC(tickets),   CODEC(targets), CODEC(page_token),
        CODEC(open_set),       CODEC(session_table), CODEC(shares),    CODEC(pubacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
