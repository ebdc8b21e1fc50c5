/* The lean TLS channel and its records: RFC 8448's trace, cuts at every point, key updates, alerts, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include <cmocka.h>

#include "lib/base/tls_channel.h"

#define ROOM (4 * TLS_RECORD_MAX)

/* --- RFC 8448, section 3 ------------------------------------------------------------------------------------------ */

static const char client_secret[] = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
static const char server_secret[] = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
static const char client_record[] = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395b"
                                    "d54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
static const char server_record[] = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6df"
                                    "fc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
static const char ticket_record[] =
    "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c758db289a015940252f5571"
    "3e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3d03f75e09c30ba1e62972ac46f75f7b981be"
    "63439b2999ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db2f0a77f81b5ab05b94c01346755f69232c86519d86cbeeac"
    "87aac347d143f9605d64f650db4d023e70e952ca49fe5137121c74bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779"
    "b37bf15985684f";
static const char client_bye[] = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
static const char server_bye[] = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

struct fixture {
    struct tls_ciphers *ciphers;
    struct tls_channel *client, *server;
    uint8_t wire[ROOM]; /* records on their way */
    size_t len;
    uint8_t client_key[256], server_key[256]; /* struct tls_keys, to make records that no channel would */
};

static size_t unhex(const char *hex, uint8_t *out)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)strtoul((char[]){hex[2 * i], hex[2 * i + 1], '\0'}, NULL, 16);
    return n;
}

static void make(struct fixture *f, enum tls_suite suite)
{
    uint8_t client[TLS_SECRET_MAX] = {1}, server[TLS_SECRET_MAX] = {2};
    unhex(client_secret, client);
    unhex(server_secret, server);
    tls_channel_free(&f->client);
    tls_channel_free(&f->server);
    f->client = tls_channel_new(
        f->ciphers, &(struct tls_channel_start){.suite = suite, .read_secret = server, .write_secret = client});
    f->server = tls_channel_new(
        f->ciphers,
        &(struct tls_channel_start){.suite = suite, .server = true, .read_secret = client, .write_secret = server});
    assert_true(f->client && f->server);
    assert_true(tls_keys_size(suite) <= sizeof f->client_key);
    assert_true(tls_keys_init(f->ciphers, (struct tls_keys *)f->client_key, suite, client));
    assert_true(tls_keys_init(f->ciphers, (struct tls_keys *)f->server_key, suite, server));
}

static int setup(void **state)
{
    struct fixture *f = aligned_alloc(16, (sizeof *f + 15) / 16 * 16);
    memset(f, 0, sizeof *f);
    f->ciphers = tls_ciphers_new();
    assert_non_null(f->ciphers);
    make(f, TLS_SUITE_AES_128_GCM);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    tls_channel_free(&f->client);
    tls_channel_free(&f->server);
    assert_null(f->client);
    tls_ciphers_free(&f->ciphers);
    free(f);
    return 0;
}

/* Puts a record of the peer's on the wire, of any type and content. */
static void put(struct fixture *f, uint8_t *keys, int type, const void *data, size_t len)
{
    f->len += tls_record_seal(f->ciphers, (struct tls_keys *)keys, (enum tls_content)type, data, len, f->wire + f->len);
}

static enum tls_outcome open_wire(struct fixture *f, struct tls_channel *c, struct tls_received *r)
{
    size_t len = f->len;
    f->len = 0;
    return tls_channel_open(c, f->wire, len, r);
}

/* The record on the wire is refused by the server with the alert. */
static void refused(struct fixture *f, enum tls_alert alert)
{
    struct tls_received r;
    assert_int_equal(open_wire(f, f->server, &r), TLS_BAD);
    assert_int_equal(r.alert, alert);
    assert_false(r.alert_came);
}

static void assert_counts_up(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(data[i], i & 255);
}

static void assert_sealed(struct slice sealed, const char *hex)
{
    uint8_t want[256];
    assert_int_equal(sealed.len, unhex(hex, want));
    assert_memory_equal(sealed.data, want, sealed.len);
}

static void test_rfc8448_keys(void **state)
{
    const struct tls_keys *k = (const struct tls_keys *)((struct fixture *)*state)->server_key;
    uint8_t want[16];
    unhex("9f02283b6c9c07efc26bb9f2ac92e356", want);
    assert_memory_equal(k->material, want, 16);
    unhex("cf782b88dd83549aadf1e984", want);
    assert_memory_equal(k->iv, want, TLS_IV_SIZE);
    k = (const struct tls_keys *)((struct fixture *)*state)->client_key;
    unhex("17422dda596ed5d9acd890e3c63f5051", want);
    assert_memory_equal(k->material, want, 16);
    unhex("5b78923dee08579033e523d9", want);
    assert_memory_equal(k->iv, want, TLS_IV_SIZE);
}

static void test_rfc8448_client(void **state)
{
    struct fixture *f = *state;
    struct tls_received r;
    uint8_t data[50];
    size_t taken;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    assert_sealed(tls_channel_seal(f->client, data, sizeof data, &taken), client_record);
    assert_int_equal(taken, sizeof data);
    f->len = unhex(ticket_record, f->wire);
    f->len += unhex(server_record, f->wire + f->len);
    assert_int_equal(open_wire(f, f->client, &r), TLS_MORE);
    assert_int_equal(r.len, 50);
    assert_counts_up(r.data, r.len);
    assert_sealed(tls_channel_alert(f->client, TLS_ALERT_CLOSE_NOTIFY), client_bye);
    f->len = unhex(server_bye, f->wire);
    assert_int_equal(open_wire(f, f->client, &r), TLS_DONE);
}

/* The server's ticket was the first record under its keys: the channel goes on behind it. */
static void test_rfc8448_server(void **state)
{
    struct fixture *f = *state;
    struct tls_received r;
    uint8_t data[50], client[32], server[32];
    size_t taken;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    unhex(client_secret, client);
    unhex(server_secret, server);
    tls_channel_free(&f->server);
    f->server = tls_channel_new(
        f->ciphers,
        &(struct tls_channel_start){.server = true, .read_secret = client, .write_secret = server, .write_seq = 1});
    f->len = unhex(client_record, f->wire);
    f->len += unhex(client_bye, f->wire + f->len);
    assert_int_equal(open_wire(f, f->server, &r), TLS_DONE);
    assert_int_equal(r.len, 50);
    assert_counts_up(r.data, r.len);
    assert_sealed(tls_channel_seal(f->server, data, sizeof data, &taken), server_record);
    assert_sealed(tls_channel_alert(f->server, TLS_ALERT_CLOSE_NOTIFY), server_bye);
    assert_int_equal(tls_channel_alert(f->server, TLS_ALERT_CLOSE_NOTIFY).len, 0);
    assert_int_equal(tls_channel_seal(f->server, data, sizeof data, &taken).len, 0);
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* Keeps what is not a whole record, as a stream does, and gives `step` bytes at a time. */
static void feed(struct tls_channel *c, const uint8_t *wire, size_t len, size_t step, struct buf *got)
{
    uint8_t *part = malloc(ROOM);
    assert_non_null(part);
    size_t have = 0;
    for (size_t at = 0; at < len; at += step) {
        struct tls_received r;
        size_t n = len - at < step ? len - at : step;
        memcpy(part + have, wire + at, n);
        have += n;
        assert_int_equal(tls_channel_open(c, part, have, &r), TLS_MORE);
        buf_put(got, r.data, r.len);
        memmove(part, part + r.used, have - r.used);
        have -= r.used;
    }
    assert_int_equal(have, 0);
    free(part);
}

/* Data, nothing, padding, a ticket in three records, a key update, data with the new key: 256 + 10 bytes in all. */
static void put_all_kinds(struct fixture *f)
{
    static const uint8_t padded[] = {100, 101, 102, TLS_CONTENT_DATA, 0, 0, 0, 0, 0}, update[] = {24, 0, 0, 1, 0};
    static const uint8_t ticket[] = {4, 0,  0,  20, 1,  2,  3,  4,  5,  6,  7,  8,
                                     9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
    uint8_t data[256 + 10];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    put(f, f->server_key, TLS_CONTENT_DATA, data, 100);
    put(f, f->server_key, TLS_CONTENT_DATA, NULL, 0);
    put(f, f->server_key, 0, padded, sizeof padded);
    put(f, f->server_key, TLS_CONTENT_HANDSHAKE, ticket, 3);
    put(f, f->server_key, TLS_CONTENT_HANDSHAKE, ticket + 3, 10);
    put(f, f->server_key, TLS_CONTENT_HANDSHAKE, ticket + 13, sizeof ticket - 13);
    put(f, f->server_key, TLS_CONTENT_DATA, data + 103, 97);
    put(f, f->server_key, TLS_CONTENT_HANDSHAKE, update, 2);
    put(f, f->server_key, TLS_CONTENT_HANDSHAKE, update + 2, 3);
    assert_true(tls_keys_update(f->ciphers, (struct tls_keys *)f->server_key));
    put(f, f->server_key, TLS_CONTENT_DATA, data + 200, 66);
}

static void test_cut_in_steps(void **state)
{
    struct fixture *f = *state;
    put_all_kinds(f);
    for (size_t step = 1; step <= f->len; step += step < 300 ? 1 : 37) {
        struct buf got = {0};
        make(f, TLS_SUITE_AES_128_GCM);
        feed(f->client, f->wire, f->len, step, &got);
        assert_int_equal(buf_len(&got), 266);
        assert_counts_up(buf_head(&got), 266);
        buf_free(&got);
    }
}

static void test_cut_in_two(void **state)
{
    struct fixture *f = *state;
    uint8_t first[2048], second[2048];
    put_all_kinds(f);
    assert_true(f->len <= sizeof first);
    for (size_t cut = 1; cut < f->len; cut++) {
        struct tls_received a, b;
        make(f, TLS_SUITE_AES_128_GCM);
        memcpy(first, f->wire, cut);
        assert_int_equal(tls_channel_open(f->client, first, cut, &a), TLS_MORE);
        memcpy(second, f->wire + a.used, f->len - a.used);
        assert_int_equal(tls_channel_open(f->client, second, f->len - a.used, &b), TLS_MORE);
        assert_int_equal(a.len + b.len, 266);
        assert_counts_up(a.data, a.len);
        for (size_t i = 0; i < b.len; i++)
            assert_int_equal(b.data[i], (a.len + i) & 255);
    }
}

/* What one side seals the other opens, with each cipher and each size at the edges. */
static void test_every_suite(void **state)
{
    static const size_t sizes[] = {1,
                                   2,
                                   15,
                                   16,
                                   17,
                                   1000,
                                   TLS_PLAIN_MAX - 1,
                                   TLS_PLAIN_MAX,
                                   TLS_PLAIN_MAX + 1,
                                   2 * TLS_PLAIN_MAX,
                                   2 * TLS_PLAIN_MAX + 5};
    struct fixture *f = *state;
    uint8_t data[2 * TLS_PLAIN_MAX + 5];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    for (unsigned suite = 0; suite < TLS_SUITE_COUNT; suite++) {
        make(f, (enum tls_suite)suite);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct tls_received r;
            size_t taken;
            struct slice sealed = tls_channel_seal(f->client, data, sizes[i], &taken);
            assert_int_equal(taken, sizes[i] > 2 * TLS_PLAIN_MAX ? 2 * TLS_PLAIN_MAX : sizes[i]);
            assert_true(sealed.len <= TLS_SEAL_ROOM);
            memcpy(f->wire, sealed.data, f->len = sealed.len);
            assert_int_equal(open_wire(f, f->server, &r), TLS_MORE);
            assert_int_equal(r.used, sealed.len);
            assert_int_equal(r.len, taken);
            assert_counts_up(r.data, r.len);
        }
    }
}

/* Records of two connections in turns, one with many in a row: the shared context always has the right key. */
static void test_connections_in_turns(void **state)
{
    struct fixture *f = *state, other = {.ciphers = f->ciphers};
    uint8_t byte = 7;
    uint8_t secret[2][TLS_SECRET_MAX] = {{3}, {4}};
    struct tls_received r;
    size_t taken;
    struct tls_channel_start start = {.read_secret = secret[0], .write_secret = secret[1]};
    other.client = tls_channel_new(f->ciphers, &start);
    start = (struct tls_channel_start){.read_secret = secret[1], .write_secret = secret[0], .server = true};
    other.server = tls_channel_new(f->ciphers, &start);
    for (unsigned i = 0; i < 30; i++) {
        struct fixture *at = i % 5 == 0 ? &other : f;
        struct slice sealed = tls_channel_seal(at->client, &byte, 1, &taken);
        memcpy(f->wire, sealed.data, f->len = sealed.len);
        assert_int_equal(open_wire(f, at->server, &r), TLS_MORE);
        assert_int_equal(r.len, 1);
        assert_int_equal(*r.data, 7);
    }
    tls_channel_free(&other.client);
    tls_channel_free(&other.server);
}

/* No bit of a record can be changed. The reserved version is covered by the tag (RFC 8446, 5.2). */
static void test_every_bit_counts(void **state)
{
    struct fixture *f = *state;
    uint8_t record[128];
    size_t size = unhex(client_record, record);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        struct tls_received r;
        memcpy(f->wire, record, size);
        f->wire[bit / 8] ^= (uint8_t)(1 << bit % 8);
        enum tls_outcome outcome = tls_channel_open(f->server, f->wire, size, &r);
        /* A longer record is waited for. */
        assert_true(outcome == TLS_BAD || (outcome == TLS_MORE && r.used == 0 && (bit / 8 == 3 || bit / 8 == 4)));
        assert_int_equal(r.len, 0);
    }
    struct tls_received r;
    assert_int_equal(tls_channel_open(f->server, record, size, &r), TLS_MORE);
    assert_int_equal(r.len, 50);
}

static void test_bad_headers(void **state)
{
    static const struct {
        uint8_t bytes[8];
        size_t len;
        enum tls_alert alert;
    } cases[] = {
        {{20, 3, 3, 0, 1, 1}, 6, TLS_ALERT_UNEXPECTED_MESSAGE}, /* change_cipher_spec, not any more */
        {{21, 3, 3, 0, 2, 1, 0}, 7, TLS_ALERT_UNEXPECTED_MESSAGE},
        {{22}, 1, TLS_ALERT_UNEXPECTED_MESSAGE},
        {{'G', 'E', 'T'}, 3, TLS_ALERT_UNEXPECTED_MESSAGE},
        {{23, 3, 3, 0x41, 0x01}, 5, TLS_ALERT_RECORD_OVERFLOW},
        {{23, 3, 3, 0xff, 0xff}, 5, TLS_ALERT_RECORD_OVERFLOW},
        {{23, 3, 3, 0, 15}, 5, TLS_ALERT_BAD_RECORD_MAC},
        {{23, 3, 3, 0, 0}, 5, TLS_ALERT_BAD_RECORD_MAC},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(f->wire, cases[i].bytes, f->len = cases[i].len);
        refused(f, cases[i].alert);
    }
}

static void test_bad_contents(void **state)
{
    struct fixture *f = *state;
    static const uint8_t zeros[TLS_PLAIN_MAX + 100];
    put(f, f->client_key, 0, zeros, 10); /* all padding */
    refused(f, TLS_ALERT_UNEXPECTED_MESSAGE);
    put(f, f->client_key, 0, NULL, 0);
    refused(f, TLS_ALERT_UNEXPECTED_MESSAGE);
    put(f, f->client_key, 99, "x", 1);
    refused(f, TLS_ALERT_UNEXPECTED_MESSAGE);
    put(f, f->client_key, TLS_CONTENT_CCS, "\1", 1);
    refused(f, TLS_ALERT_UNEXPECTED_MESSAGE);
    put(f, f->client_key, TLS_CONTENT_HANDSHAKE, NULL, 0);
    refused(f, TLS_ALERT_UNEXPECTED_MESSAGE);
    put(f, f->client_key, TLS_CONTENT_DATA, zeros, TLS_PLAIN_MAX + 1);
    refused(f, TLS_ALERT_RECORD_OVERFLOW);
    put(f, f->client_key, 0, zeros, TLS_PLAIN_MAX + 50);
    refused(f, TLS_ALERT_RECORD_OVERFLOW);
}

/* What came before a bad record is handed up all the same. */
static void test_data_before_the_bad(void **state)
{
    struct fixture *f = *state;
    struct tls_received r;
    put(f, f->client_key, TLS_CONTENT_DATA, "ab", 2);
    put(f, f->client_key, TLS_CONTENT_DATA, "cd", 2);
    put(f, f->client_key, 99, "x", 1);
    assert_int_equal(open_wire(f, f->server, &r), TLS_BAD);
    assert_int_equal(r.len, 4);
    assert_memory_equal(r.data, "abcd", 4);
}

/* --- alerts ------------------------------------------------------------------------------------------------------- */

static void test_alerts(void **state)
{
    struct fixture *f = *state;
    struct tls_received r;
    put(f, f->client_key, TLS_CONTENT_ALERT, "\1\132", 2); /* user_canceled: a close_notify will follow */
    assert_int_equal(open_wire(f, f->server, &r), TLS_MORE);
    put(f, f->client_key, TLS_CONTENT_ALERT, "\1\24", 2); /* fatal, whatever its level says */
    assert_int_equal(open_wire(f, f->server, &r), TLS_BAD);
    assert_true(r.alert_came);
    assert_int_equal(r.alert, TLS_ALERT_BAD_RECORD_MAC);
    put(f, f->client_key, TLS_CONTENT_ALERT, NULL, 0);
    refused(f, TLS_ALERT_UNEXPECTED_MESSAGE);
    put(f, f->client_key, TLS_CONTENT_ALERT, "\1", 1);
    refused(f, TLS_ALERT_DECODE_ERROR);
    put(f, f->client_key, TLS_CONTENT_ALERT, "\1\0\1\0", 4);
    refused(f, TLS_ALERT_DECODE_ERROR);
    /* What comes behind the end is not looked at. */
    put(f, f->client_key, TLS_CONTENT_DATA, "ab", 2);
    put(f, f->client_key, TLS_CONTENT_ALERT, "\1\0", 2);
    put(f, f->client_key, TLS_CONTENT_DATA, "cd", 2);
    assert_int_equal(open_wire(f, f->server, &r), TLS_DONE);
    assert_int_equal(r.len, 2);
}

static void test_sent_alert_is_read(void **state)
{
    struct fixture *f = *state;
    struct tls_received r;
    struct slice sealed = tls_channel_alert(f->server, TLS_ALERT_DECODE_ERROR);
    memcpy(f->wire, sealed.data, f->len = sealed.len);
    assert_int_equal(open_wire(f, f->client, &r), TLS_BAD);
    assert_true(r.alert_came);
    assert_int_equal(r.alert, TLS_ALERT_DECODE_ERROR);
}

/* --- handshake messages ------------------------------------------------------------------------------------------- */

static void test_bad_messages(void **state)
{
    static const struct {
        uint8_t bytes[12];
        size_t len;
        enum tls_alert alert;
    } cases[] = {
        {{24, 0, 0, 1, 2}, 5, TLS_ALERT_ILLEGAL_PARAMETER},
        {{24, 0, 0, 2, 0, 0}, 6, TLS_ALERT_DECODE_ERROR},
        {{24, 0, 0, 0}, 4, TLS_ALERT_DECODE_ERROR},
        {{24, 0, 0, 1, 0, 24}, 6, TLS_ALERT_UNEXPECTED_MESSAGE},  /* nothing may follow in the record: its key is old */
        {{4, 0, 0, 3, 1, 2, 3}, 7, TLS_ALERT_UNEXPECTED_MESSAGE}, /* a client has no tickets to give */
        {{13, 0, 0, 3, 0, 0, 0}, 7, TLS_ALERT_UNEXPECTED_MESSAGE}, /* CertificateRequest */
        {{1, 0, 0, 1, 0}, 5, TLS_ALERT_UNEXPECTED_MESSAGE},        /* ClientHello: no renegotiation */
        {{20, 0, 0, 0}, 4, TLS_ALERT_UNEXPECTED_MESSAGE},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make(f, TLS_SUITE_CHACHA20);
        put(f, f->client_key, TLS_CONTENT_HANDSHAKE, cases[i].bytes, cases[i].len);
        refused(f, cases[i].alert);
    }
}

static void test_bad_tickets(void **state)
{
    static const uint8_t empty[] = {4, 0, 0, 0}, huge[] = {4, 2, 2, 0}, request[] = {13, 0, 0, 1, 0};
    const struct {
        const uint8_t *bytes;
        size_t len;
        enum tls_alert alert;
    } cases[] = {{empty, sizeof empty, TLS_ALERT_DECODE_ERROR},
                 {huge, sizeof huge, TLS_ALERT_DECODE_ERROR},
                 {request, sizeof request, TLS_ALERT_UNEXPECTED_MESSAGE}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tls_received r;
        make(f, TLS_SUITE_AES_256_GCM);
        put(f, f->server_key, TLS_CONTENT_HANDSHAKE, cases[i].bytes, cases[i].len);
        assert_int_equal(open_wire(f, f->client, &r), TLS_BAD);
        assert_int_equal(r.alert, cases[i].alert);
    }
}

/* Nothing comes between the parts of a message (RFC 8446, 5.1). */
static void test_interleaved(void **state)
{
    static const uint8_t ticket[] = {4, 0, 0, 9, 1, 2};
    struct fixture *f = *state;
    for (size_t begun = 1; begun <= sizeof ticket; begun++) {
        for (int type = TLS_CONTENT_ALERT; type <= TLS_CONTENT_DATA; type += 2) {
            struct tls_received r;
            make(f, TLS_SUITE_AES_128_GCM);
            put(f, f->server_key, TLS_CONTENT_HANDSHAKE, ticket, begun);
            put(f, f->server_key, type, "\1\0", 2);
            assert_int_equal(open_wire(f, f->client, &r), TLS_BAD);
            assert_int_equal(r.alert, TLS_ALERT_UNEXPECTED_MESSAGE);
        }
    }
}

static void test_barren_records(void **state)
{
    struct fixture *f = *state;
    struct tls_received r;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < TLS_BARREN_MAX; i++)
            put(f, f->client_key, TLS_CONTENT_DATA, NULL, 0);
        put(f, f->client_key, TLS_CONTENT_DATA, "x", 1);
        assert_int_equal(open_wire(f, f->server, &r), TLS_MORE);
        assert_int_equal(r.len, 1);
    }
    for (unsigned i = 0; i <= TLS_BARREN_MAX; i++)
        put(f, f->client_key, TLS_CONTENT_DATA, NULL, 0);
    refused(f, TLS_ALERT_UNEXPECTED_MESSAGE);
}

/* --- key updates -------------------------------------------------------------------------------------------------- */

/* Sends a byte from one to the other; returns how many bytes that took. */
static size_t say(struct fixture *f, struct tls_channel *from, struct tls_channel *to)
{
    struct tls_received r;
    uint8_t byte = 42;
    size_t taken;
    struct slice sealed = tls_channel_seal(from, &byte, 1, &taken);
    memcpy(f->wire, sealed.data, f->len = sealed.len);
    assert_int_equal(open_wire(f, to, &r), TLS_MORE);
    assert_int_equal(r.len, 1);
    assert_int_equal(*r.data, 42);
    return sealed.len;
}

#define DATA_RECORD   (TLS_SEALED_EXTRA + 1)
#define UPDATE_RECORD (TLS_SEALED_EXTRA + 5)

/* A side that is asked for new keys gives them with its next words, once, however often it was asked. */
static void test_update_is_answered(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(say(f, f->client, f->server), DATA_RECORD);
    for (unsigned i = 0; i < 3; i++) {
        tls_channel_renew(f->client);
        assert_int_equal(say(f, f->client, f->server), UPDATE_RECORD + DATA_RECORD);
    }
    assert_int_equal(say(f, f->server, f->client), UPDATE_RECORD + DATA_RECORD);
    assert_int_equal(say(f, f->server, f->client), DATA_RECORD);
    assert_int_equal(say(f, f->client, f->server), DATA_RECORD);
}

/* Both ask at once: both answer (RFC 8446, 4.6.3). */
static void test_updates_cross(void **state)
{
    struct fixture *f = *state;
    uint8_t other[128], byte = 1;
    struct tls_received r;
    size_t taken;
    tls_channel_renew(f->client);
    tls_channel_renew(f->server);
    struct slice sealed = tls_channel_seal(f->server, &byte, 1, &taken);
    size_t len = sealed.len;
    memcpy(other, sealed.data, len);
    assert_int_equal(say(f, f->client, f->server), UPDATE_RECORD + DATA_RECORD);
    assert_int_equal(tls_channel_open(f->client, other, len, &r), TLS_MORE);
    assert_int_equal(say(f, f->client, f->server), UPDATE_RECORD + DATA_RECORD);
    assert_int_equal(say(f, f->server, f->client), UPDATE_RECORD + DATA_RECORD);
    assert_int_equal(say(f, f->client, f->server), DATA_RECORD);
}

/* A key is used for so many records and no more, both the own and, by asking, the peer's. */
static void test_key_limit(void **state)
{
    struct fixture *f = *state;
    tls_channel_set_key_records(f->client, 4);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = round == 0 ? 0 : 1; i < 4; i++)
            assert_int_equal(say(f, f->client, f->server), DATA_RECORD);
        assert_int_equal(say(f, f->client, f->server), UPDATE_RECORD + DATA_RECORD);
    }
    /* The server's fourth record makes the client ask; asked once only, it answers once. */
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(say(f, f->server, f->client), DATA_RECORD);
    assert_int_equal(say(f, f->client, f->server), UPDATE_RECORD + DATA_RECORD);
    assert_int_equal(say(f, f->client, f->server), DATA_RECORD);
    assert_int_equal(say(f, f->server, f->client), UPDATE_RECORD + DATA_RECORD);
    assert_int_equal(say(f, f->server, f->client), DATA_RECORD);
}

static bool contains(const uint8_t *in, size_t len, const uint8_t *what, size_t n)
{
    return memmem(in, len, what, n) != NULL;
}

static void test_keys_are_wiped(void **state)
{
    struct fixture *f = *state;
    struct tls_keys *k = (struct tls_keys *)f->client_key;
    uint8_t old[16], secret[32];
    size_t size = tls_keys_size(TLS_SUITE_AES_128_GCM);
    memcpy(old, k->material, sizeof old);
    unhex(client_secret, secret);
    assert_true(contains(f->client_key, size, secret, sizeof secret));
    put(f, f->client_key, TLS_CONTENT_DATA, "x", 1);
    assert_int_equal(k->seq, 1);
    assert_true(tls_keys_update(f->ciphers, k));
    assert_int_equal(k->seq, 0);
    assert_false(contains(f->client_key, size, old, sizeof old));
    assert_false(contains(f->client_key, size, secret, sizeof secret));
    tls_keys_wipe(f->ciphers, k);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(f->client_key[i], 0);
}

static void test_numbers_do_not_wrap(void **state)
{
    struct fixture *f = *state;
    struct tls_plain plain;
    uint8_t record[64];
    ((struct tls_keys *)f->client_key)->seq = UINT64_MAX - 1;
    struct tls_keys *reader = (struct tls_keys *)f->server_key;
    memcpy(reader, f->client_key, sizeof f->client_key);
    size_t size = tls_record_seal(f->ciphers, (struct tls_keys *)f->client_key, TLS_CONTENT_DATA, NULL, 0, record);
    assert_true(size > 0);
    assert_int_equal(tls_record_open(f->ciphers, reader, record, size, &plain), TLS_ALERT_NONE);
    assert_int_equal(tls_record_seal(f->ciphers, (struct tls_keys *)f->client_key, TLS_CONTENT_DATA, NULL, 0, record),
                     0);
    assert_int_equal(tls_record_open(f->ciphers, reader, record, size, &plain), TLS_ALERT_INTERNAL_ERROR);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static long allocations_left = -1; /* of OpenSSL's; -1: no end */

static bool may_allocate(void)
{
    if (allocations_left > 0)
        allocations_left--;
    return allocations_left != 0;
}

static void *limited_malloc(size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return may_allocate() ? malloc(n) : NULL;
}

static void *limited_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return may_allocate() ? realloc(p, n) : NULL;
}

static void plain_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    free(p);
}

static void test_without_memory(void **state)
{
    (void)state;
    struct tls_ciphers *ciphers = NULL;
    long n;
    for (n = 0; !ciphers; n++) {
        assert_true(n < 1000);
        allocations_left = n + 1;
        ciphers = tls_ciphers_new();
        allocations_left = -1;
    }
    assert_true(n > 10);
    tls_ciphers_free(&ciphers);
}

#define CHANNEL_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    assert_int_equal(CRYPTO_set_mem_functions(limited_malloc, limited_realloc, plain_free), 1);
    const struct CMUnitTest tests[] = {
        CHANNEL_TEST(test_rfc8448_keys),         CHANNEL_TEST(test_rfc8448_client),
        CHANNEL_TEST(test_rfc8448_server),       CHANNEL_TEST(test_cut_in_steps),
        CHANNEL_TEST(test_cut_in_two),           CHANNEL_TEST(test_every_suite),
        CHANNEL_TEST(test_connections_in_turns), CHANNEL_TEST(test_every_bit_counts),
        CHANNEL_TEST(test_bad_headers),          CHANNEL_TEST(test_bad_contents),
        CHANNEL_TEST(test_data_before_the_bad),  CHANNEL_TEST(test_alerts),
        CHANNEL_TEST(test_sent_alert_is_read),   CHANNEL_TEST(test_bad_messages),
        CHANNEL_TEST(test_bad_tickets),          CHANNEL_TEST(test_interleaved),
        CHANNEL_TEST(test_barren_records),       CHANNEL_TEST(test_update_is_answered),
        CHANNEL_TEST(test_updates_cross),        CHANNEL_TEST(test_key_limit),
        CHANNEL_TEST(test_keys_are_wiped),       CHANNEL_TEST(test_numbers_do_not_wrap),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
