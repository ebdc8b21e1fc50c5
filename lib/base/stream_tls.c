/* TLS under a stream: contexts, handshakes, and the records that OpenSSL makes. OpenSSL never touches the socket: its
 * BIO reads from what the hub received in one recv, so that a record costs one system call rather than three (header,
 * body, would-block), and it writes straight to the socket, what the kernel does not take being kept in s->tls->wire.
 * So OpenSSL never sees a write that would block. */
#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/stream_internal.h"
#include "lib/base/tls_takeover.h"

struct tls {
    SSL_CTX *ctx;
    BIO_METHOD *wire;
    BIO *shared; /* of all connections whose handshake is done: its data is the stream at work. Saves 220 bytes each */
    struct tls_tickets *tickets; /* NULL until keys are given */
    struct tls_ciphers *ciphers; /* of lean records; NULL: OpenSSL's */
    char *server_name;
    unsigned char alpn[256]; /* length byte and name (RFC 7301, 3.1); alpn[0] 0 for none */
};

/* --- between OpenSSL and the socket --------------------------------------------------------------------------------
 */

static int wire_read(BIO *bio, char *data, size_t len, size_t *got)
{
    struct stream *s = BIO_get_data(bio);
    struct slice *raw = &s->hub->raw;
    BIO_clear_retry_flags(bio);
    if (raw->len == 0) {
        s->hub->starved = true;
        BIO_set_retry_read(bio);
        return 0;
    }
    *got = len < raw->len ? len : raw->len;
    memcpy(data, raw->data, *got);
    raw->data += *got;
    raw->len -= *got;
    return 1;
}

static int wire_write(BIO *bio, const char *data, size_t len, size_t *done)
{
    struct stream *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (!stream_send_records(s, (const uint8_t *)data, len))
        return 0;
    *done = len;
    return 1;
}

static long wire_ctrl(BIO *bio, int cmd, long n, void *p)
{
    (void)bio, (void)n, (void)p;
    return cmd == BIO_CTRL_FLUSH;
}

/* --- contexts -------------------------------------------------------------------------------------------------------
 */

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                       unsigned in_len, void *arg)
{
    (void)ssl;
    const struct tls *tls = arg;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_len, tls->alpn, tls->alpn[0] + 1U, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Says in the log what OpenSSL's error queue says last, and empties it. */
static void log_openssl(const char *event, const char *file)
{
    char reason[256];
    ERR_error_string_n(ERR_peek_last_error(), reason, sizeof reason);
    log_error(event, "file=%s reason=%s", log_quote(file), log_quote(reason));
    ERR_clear_error();
}

static bool set_up_common(struct tls *tls, const struct tls_options *o)
{
    SSL_CTX *ctx = tls->ctx;
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_PRIORITIZE_CHACHA |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    /* The cheapest that are still beyond doubt, first. */
    if (!SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384") ||
        !SSL_CTX_set_cipher_list(ctx, "ECDHE+AES128+AESGCM:ECDHE+CHACHA20:ECDHE+AESGCM") ||
        !SSL_CTX_set1_groups_list(ctx, "X25519:P-256"))
        return false;
    size_t n = o->alpn ? strlen(o->alpn) : 0;
    if (n > 255)
        return false;
    tls->alpn[0] = (unsigned char)n;
    if (n)
        memcpy(tls->alpn + 1, o->alpn, n);
    return true;
}

static bool set_up_server(struct tls *tls, const struct tls_options *o)
{
    if (SSL_CTX_use_certificate_chain_file(tls->ctx, o->cert_file) != 1) {
        log_openssl("tls_certificate_unusable", o->cert_file);
        return false;
    }
    if (SSL_CTX_use_PrivateKey_file(tls->ctx, o->key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(tls->ctx) != 1) {
        log_openssl("tls_key_unusable", o->key_file);
        return false;
    }
    SSL_CTX_set_session_id_context(tls->ctx, (const unsigned char *)"muster", 6);
    /* One ticket is enough for the next connection; each costs an encryption and a write. */
    SSL_CTX_set_num_tickets(tls->ctx, 1);
    if (tls->alpn[0])
        SSL_CTX_set_alpn_select_cb(tls->ctx, select_alpn, tls);
    return true;
}

static bool set_up_client(struct tls *tls, const struct tls_options *o)
{
    if (tls->alpn[0] && SSL_CTX_set_alpn_protos(tls->ctx, tls->alpn, tls->alpn[0] + 1U) != 0)
        return false;
    if (o->server_name && !(tls->server_name = strdup(o->server_name)))
        return false;
    if (o->insecure) {
        SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_NONE, NULL);
        return true;
    }
    SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER, NULL);
    int ok = o->ca_file ? SSL_CTX_load_verify_locations(tls->ctx, o->ca_file, NULL)
                        : SSL_CTX_set_default_verify_paths(tls->ctx);
    if (ok != 1)
        log_openssl("tls_ca_unusable", o->ca_file ? o->ca_file : "system");
    return ok == 1;
}

static BIO *new_bio(const struct tls *tls)
{
    BIO *bio = BIO_new(tls->wire);
    if (bio)
        BIO_set_init(bio, 1);
    return bio;
}

struct tls *tls_new(const struct tls_options *o)
{
    struct tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return NULL;
    if (o->server && (!o->cert_file || !o->key_file)) {
        log_error("tls_certificate_missing", "reason=\"a server needs a certificate and a key\"");
        goto fail;
    }
    ERR_clear_error();
    tls->ctx = SSL_CTX_new(o->server ? TLS_server_method() : TLS_client_method());
    tls->wire = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "muster stream");
    if (!tls->ctx || !tls->wire || !set_up_common(tls, o)) {
        log_openssl("tls_unusable", "");
        goto fail;
    }
    BIO_meth_set_read_ex(tls->wire, wire_read);
    BIO_meth_set_write_ex(tls->wire, wire_write);
    BIO_meth_set_ctrl(tls->wire, wire_ctrl);
    tls->shared = new_bio(tls);
    if (o->lean) {
        tls->ciphers = tls_ciphers_new();
        tls_takeover_prepare(tls->ctx);
    }
    if (!tls->shared || (o->lean && !tls->ciphers)) {
        log_openssl("tls_unusable", "");
        goto fail;
    }
    if (!(o->server ? set_up_server(tls, o) : set_up_client(tls, o)))
        goto fail;
    return tls;
fail:
    tls_free(&tls);
    return NULL;
}

void tls_free(struct tls **tls)
{
    if (!*tls)
        return;
    SSL_CTX_free((*tls)->ctx);
    tls_tickets_free(&(*tls)->tickets);
    BIO_free((*tls)->shared);
    BIO_meth_free((*tls)->wire);
    tls_ciphers_free(&(*tls)->ciphers);
    free((*tls)->server_name);
    free(*tls);
    *tls = NULL;
}

enum err tls_set_ticket_keys(struct tls *tls, const struct tls_ticket_key *keys, size_t count, size_t encrypting)
{
    if (!tls->tickets && !(tls->tickets = tls_tickets_new(tls->ctx)))
        return ERR_NOMEM;
    tls_tickets_set(tls->tickets, keys, count, encrypting);
    return ERR_OK;
}

struct slice stream_tls_alpn(const struct tls *tls)
{
    return (struct slice){tls->alpn + 1, tls->alpn[0]};
}

/* --- connections ----------------------------------------------------------------------------------------------------
 */

/* The name a client expects: SNI takes no addresses (RFC 6066, 3), and those are checked differently. */
static bool set_name(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1)
        return true;
    ERR_clear_error();
    return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

static void begin_handshake(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    s->shaking = true;
    if (++hub->handshakes > hub->handshakes_peak)
        hub->handshakes_peak = hub->handshakes;
}

/* A handshake takes 20 KB or more for a moment. What a crowd of them leaves free is given back to the system when the
 * crowd is nearly through, since malloc would do that only from the end of the heap on. Measured with 10,000 at once,
 * which takes 4 s: 110 ms, and 15 KB less a device. */
static void end_handshake(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    if (!s->shaking)
        return;
    s->shaking = false;
    hub->handshakes--;
    int64_t began = clock_mono_us();
    bool long_ago = !hub->given_back_ms || began / 1000 - hub->given_back_ms > STREAM_GIVE_BACK_MS;
    if (long_ago && hub->handshakes_peak >= STREAM_CROWD && hub->handshakes <= hub->handshakes_peak / 16) {
        hub->handshakes_peak = hub->handshakes;
        hub->given_back_ms = began / 1000;
        malloc_trim(0);
        log_debug("memory_given_back", "us=%lld", (long long)(clock_mono_us() - began));
    }
}

static bool start(struct stream *s)
{
    const struct tls *tls = s->tls->context;
    BIO *bio = new_bio(tls);
    SSL *ssl = bio ? SSL_new(tls->ctx) : NULL;
    if (!ssl) {
        BIO_free(bio);
        return false;
    }
    BIO_set_data(bio, s);
    SSL_set_bio(ssl, bio, bio);
    s->tls->ssl = ssl;
    if (!s->client && !s->closing)
        stream_set_deadline(s, STREAM_UNTIL_SHAKEN, s->handshake_ms);
    begin_handshake(s);
    if (tls->ciphers && !tls_takeover_listen(ssl))
        return false;
    if (!s->client)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return !s->client || !tls->server_name || set_name(ssl, tls->server_name);
}

static void openssl_free(struct stream *s)
{
    tls_takeover_end(s->tls->ssl);
    SSL_free(s->tls->ssl);
    s->tls->ssl = NULL;
    end_handshake(s);
}

/* Why OpenSSL gave up. The error queue is looked at here only: a stale entry of other code's can't fell a connection.
 */
static enum err failure(struct stream *s)
{
    char reason[256];
    ERR_error_string_n(ERR_peek_last_error(), reason, sizeof reason);
    enum err why = ERR_PROTOCOL;
    if (s->state == STREAM_HANDSHAKE && s->client && SSL_get_verify_result(s->tls->ssl) != X509_V_OK) {
        why = ERR_AUTH;
        log_warn("tls_peer_untrusted", "peer=%s reason=%s", stream_peer(s),
                 log_quote(X509_verify_cert_error_string(SSL_get_verify_result(s->tls->ssl))));
    } else {
        log_debug("tls_failed", "peer=%s reason=%s", stream_peer(s), log_quote(reason));
    }
    ERR_clear_error();
    return why;
}

/* Whether OpenSSL's last call failed only for want of bytes. */
static bool starved(const struct stream *s)
{
    return s->hub->starved && ERR_peek_error() == 0;
}

/* The handshake is done: lean records go on, if they are wanted and may. */
static void choose_records(struct stream *s)
{
    const unsigned char *alpn = NULL;
    unsigned alpn_len = 0;
    bool later;
    SSL_get0_alpn_selected(s->tls->ssl, &alpn, &alpn_len);
    s->alpn = alpn_len > 0;
    struct tls_channel *lean =
        s->tls->context->ciphers ? tls_takeover_make(s->tls->ssl, s->tls->context->ciphers, &later) : NULL;
    tls_takeover_end(s->tls->ssl);
    if (lean) {
        SSL_free(s->tls->ssl);
        s->tls->lean = lean;
        s->is_lean = true;
        end_handshake(s);
        return;
    }
    /* A BIO of its own was needed only as long as OpenSSL put its buffer of flights in front of it. */
    BIO_up_ref(s->tls->context->shared);
    SSL_set_bio(s->tls->ssl, s->tls->context->shared, s->tls->context->shared);
    end_handshake(s);
}

/* Goes on with the handshake; true once it is done and the stream still lives. */
static bool handshake(struct stream *s)
{
    if (!s->tls->ssl && !start(s)) {
        ERR_clear_error();
        stream_fail(s, ERR_NOMEM);
        return false;
    }
    s->hub->starved = false;
    if (SSL_do_handshake(s->tls->ssl) == 1) {
        choose_records(s);
        stream_opened(s);
        return s->state != STREAM_CLOSED;
    }
    if (!starved(s))
        stream_fail(s, failure(s));
    else if (s->tls->wire)
        stream_flush(s);
    return false;
}

/* Reads the records that came. */
static void read_records(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    size_t n = 0, got;
    bool ended = false, more = hub->raw.len > 0 || SSL_pending(s->tls->ssl) > 0;
    enum err why = ERR_CLOSED;
    /* Records come one a call; all of them go up in one. */
    hub->starved = false;
    BIO_set_data(s->tls->context->shared, s);
    while (more) {
        assert(n < sizeof hub->plain);
        int ok = SSL_read_ex(s->tls->ssl, hub->plain + n, sizeof hub->plain - n, &got);
        if (ok) {
            n += got;
            /* When the bytes ended with this record there is no need to be told so. */
            more = hub->raw.len > 0 || SSL_pending(s->tls->ssl) > 0;
        } else {
            more = false;
            ended = !starved(s);
        }
    }
    if (ended && ERR_peek_error() != 0)
        why = failure(s);
    if (n > 0)
        stream_deliver(s, hub->plain, n);
    if (s->state != STREAM_CLOSED && ended)
        stream_fail(s, why);
}

static void openssl_receive(struct stream *s)
{
    /* What other code left in the queue is not this connection's. */
    if (ERR_peek_error() != 0)
        ERR_clear_error();
    if (s->state == STREAM_HANDSHAKE && !handshake(s))
        return;
    if (!s->is_lean)
        read_records(s);
    else if (s->hub->raw.len > 0)
        stream_lean_records.receive(s);
    if (s->state != STREAM_CLOSED && s->tls->wire)
        stream_flush(s);
}

static bool openssl_flush(struct stream *s)
{
    size_t budget = STREAM_FLUSH_MAX, done;
    BIO_set_data(s->tls->context->shared, s);
    while (s->out && !s->tls->wire && budget > 0) {
        /* Never would-block, so anything but success is the end. */
        if (!SSL_write_ex(s->tls->ssl, buf_head(s->out), buf_len(s->out), &done)) {
            ERR_clear_error();
            return false;
        }
        buf_consume(s->out, done);
        if (buf_len(s->out) == 0)
            stream_return_buf(s->hub, &s->out);
        budget -= done < budget ? done : budget;
    }
    return true;
}

static void openssl_notify_close(struct stream *s)
{
    BIO_set_data(s->tls->context->shared, s);
    if (!(SSL_get_shutdown(s->tls->ssl) & SSL_SENT_SHUTDOWN) && SSL_shutdown(s->tls->ssl) < 0)
        ERR_clear_error();
}

const struct stream_records stream_openssl_records = {openssl_receive, openssl_flush, openssl_notify_close,
                                                      openssl_free};
