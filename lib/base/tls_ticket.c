#include "lib/base/tls_ticket.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What OpenSSL's callback may answer (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)). */
enum answer {
    ANSWER_FAILED = -1,
    ANSWER_NONE = 0, /* no such key: a full handshake */
    ANSWER_GOOD = 1,
    ANSWER_RENEW = 2, /* good, and the client gets a new ticket */
};

struct tls_tickets {
    SSL_CTX *ctx;
    EVP_CIPHER *cipher; /* fetched once: looking it up costs more than using it */
    size_t count, encrypting;
    struct tls_ticket_key keys[TLS_TICKET_KEYS_MAX];
};

_Static_assert(sizeof(struct tls_ticket_key) == TLS_TICKET_KEY_BYTES, "a key is stored as its bytes");

static const struct tls_ticket_key *find(const struct tls_tickets *t, const unsigned char name[16])
{
    for (size_t i = 0; i < t->count; i++)
        if (memcmp(t->keys[i].name, name, sizeof t->keys[i].name) == 0)
            return &t->keys[i];
    return NULL;
}

static bool set_mac(EVP_MAC_CTX *mac, const struct tls_ticket_key *key)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

static int on_ticket(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int encrypt)
{
    const struct tls_tickets *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const struct tls_ticket_key *key = encrypt ? &t->keys[t->encrypting] : find(t, name);
    if (!key)
        return ANSWER_NONE;
    if (encrypt) {
        memcpy(name, key->name, sizeof key->name);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(t->cipher)) != 1)
            return ANSWER_FAILED;
    }
    if (EVP_CipherInit_ex(cipher, t->cipher, NULL, key->cipher, iv, encrypt) != 1 || !set_mac(mac, key))
        return ANSWER_FAILED;
    return encrypt || key == &t->keys[t->encrypting] ? ANSWER_GOOD : ANSWER_RENEW;
}

struct tls_tickets *tls_tickets_new(SSL_CTX *ctx)
{
    struct tls_tickets *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->ctx = ctx;
    t->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (!t->cipher)
        tls_tickets_free(&t);
    return t;
}

void tls_tickets_free(struct tls_tickets **tickets)
{
    struct tls_tickets *t = *tickets;
    if (!t)
        return;
    EVP_CIPHER_free(t->cipher);
    OPENSSL_cleanse(t->keys, sizeof t->keys);
    free(t);
    *tickets = NULL;
}

void tls_tickets_set(struct tls_tickets *t, const struct tls_ticket_key *keys, size_t count, size_t encrypting)
{
    size_t kept = count < TLS_TICKET_KEYS_MAX ? count : TLS_TICKET_KEYS_MAX;
    assert(encrypting < kept);
    OPENSSL_cleanse(t->keys, sizeof t->keys);
    memcpy(t->keys, keys, kept * sizeof *keys);
    t->count = kept;
    t->encrypting = encrypting;
    SSL_CTX_set_app_data(t->ctx, t);
    SSL_CTX_set_timeout(t->ctx, TLS_TICKET_LIFE_S);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(t->ctx, on_ticket);
}
