#include "lib/base/tls_takeover.h"

#include <openssl/crypto.h>
#include <string.h>

enum { TO_READ, TO_WRITE, DIRECTIONS };

struct heard {
    uint8_t secret[DIRECTIONS][TLS_SECRET_MAX];
    size_t size[DIRECTIONS];      /* 0: not heard yet */
    uint32_t records[DIRECTIONS]; /* headers seen since the secret was */
    bool ticket;
};

static struct heard *heard_of(const SSL *ssl)
{
    BIO *bio = SSL_get_rbio(ssl);
    return bio ? BIO_get_app_data(bio) : NULL;
}

/* The library's own, and so one: not looked at twice. */
static unsigned digit(char c)
{
    return (unsigned)(c >= '0' && c <= '9' ? c - '0' : c - 'a' + 10) & 15;
}

/* The format is NSS's key log: label, client random, secret, in hexadecimal. OpenSSL wipes the line. */
static void on_secret(const SSL *ssl, const char *line)
{
    static const char *const labels[] = {"CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "};
    struct heard *h = heard_of(ssl);
    for (unsigned server = 0; h && server < 2; server++) {
        size_t n = strlen(labels[server]);
        if (strncmp(line, labels[server], n) != 0)
            continue;
        unsigned to = (unsigned)SSL_is_server(ssl) == server ? TO_WRITE : TO_READ;
        const char *hex = strrchr(line, ' ') + 1;
        size_t size = strlen(hex) / 2;
        for (size_t i = 0; i < size && i < TLS_SECRET_MAX; i++)
            h->secret[to][i] = (uint8_t)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
        h->size[to] = size;
        h->records[to] = 0;
    }
}

/* A secret is logged when it comes into use, so that every header seen from then on is of a record it protects. */
static void on_message(int write, int version, int type, const void *data, size_t len, SSL *ssl, void *arg)
{
    (void)version, (void)arg;
    struct heard *h = heard_of(ssl);
    unsigned to = write ? TO_WRITE : TO_READ;
    if (h && type == SSL3_RT_HEADER && h->size[to] > 0)
        h->records[to]++;
    if (h && type == SSL3_RT_HANDSHAKE && !write && len > 0 && *(const uint8_t *)data == SSL3_MT_NEWSESSION_TICKET)
        h->ticket = true;
}

void tls_takeover_prepare(SSL_CTX *ctx)
{
    SSL_CTX_set_keylog_callback(ctx, on_secret);
    SSL_CTX_set_msg_callback(ctx, on_message);
}

bool tls_takeover_listen(SSL *ssl)
{
    struct heard *h = OPENSSL_zalloc(sizeof *h);
    if (h && BIO_set_app_data(SSL_get_rbio(ssl), h) == 1)
        return true;
    OPENSSL_free(h);
    return false;
}

bool tls_takeover_ticket_came(const SSL *ssl)
{
    const struct heard *h = heard_of(ssl);
    return h && h->ticket;
}

struct tls_channel *tls_takeover_make(SSL *ssl, struct tls_ciphers *ciphers, bool *later)
{
    const struct heard *h = heard_of(ssl);
    const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
    struct tls_channel_start start = {.server = SSL_is_server(ssl)};
    *later = SSL_has_pending(ssl) == 1;
    if (!h || !cipher || *later || SSL_version(ssl) != TLS1_3_VERSION ||
        !tls_suite_of(SSL_CIPHER_get_protocol_id(cipher), &start.suite) ||
        h->size[TO_READ] != tls_secret_size(start.suite) || h->size[TO_WRITE] != h->size[TO_READ])
        return NULL;
    start.read_secret = h->secret[TO_READ];
    start.write_secret = h->secret[TO_WRITE];
    start.read_seq = h->records[TO_READ];
    start.write_seq = h->records[TO_WRITE];
    return tls_channel_new(ciphers, &start);
}

void tls_takeover_end(SSL *ssl)
{
    struct heard *h = ssl ? heard_of(ssl) : NULL;
    if (!h)
        return;
    BIO_set_app_data(SSL_get_rbio(ssl), NULL);
    OPENSSL_clear_free(h, sizeof *h);
}
