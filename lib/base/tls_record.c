#include "lib/base/tls_record.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"

/* HkdfLabel (RFC 8446, 7.1): length, "tls13 " and the label, an empty context; one byte of HKDF's counter follows. */
#define LABEL_PREFIX "tls13 "
#define INFO_MAX     32
/* What a connection takes beside its keys, see struct tls_channel. */
#define TLS_CONNECTION_SIZE 32

enum hash { HASH_SHA256, HASH_SHA384, HASH_COUNT };
enum direction { OPEN, SEAL, DIRECTIONS };

static const struct suite {
    const char *name;
    unsigned number; /* RFC 8446, B.4 */
    uint8_t key_size, secret_size;
    enum hash hash;
} suites[TLS_SUITE_COUNT] = {
    [TLS_SUITE_AES_128_GCM] = {"AES-128-GCM", 0x1301, 16, 32, HASH_SHA256},
    [TLS_SUITE_CHACHA20] = {"ChaCha20-Poly1305", 0x1303, 32, 32, HASH_SHA256},
    [TLS_SUITE_AES_256_GCM] = {"AES-256-GCM", 0x1302, 32, 48, HASH_SHA384},
};

struct context {
    EVP_CIPHER_CTX *evp;
    bool loaded;
    uint8_t key[TLS_KEY_MAX]; /* which is in `evp`, when `loaded`: many records of one connection load it once */
};

struct tls_ciphers {
    struct context contexts[DIRECTIONS][TLS_SUITE_COUNT];
    EVP_MAC_CTX *hmac[HASH_COUNT];
    struct pool pools[TLS_SUITE_COUNT];
    uint8_t room[TLS_SEAL_ROOM];
};

/* --- a process's contexts ----------------------------------------------------------------------------------------- */

static bool make_context(struct context *c, enum direction direction, enum tls_suite suite)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, suites[suite].name, NULL);
    c->evp = EVP_CIPHER_CTX_new();
    bool good = cipher && c->evp && EVP_CipherInit_ex(c->evp, cipher, NULL, NULL, NULL, direction == SEAL) == 1;
    EVP_CIPHER_free(cipher);
    return good;
}

static bool make_hmac(struct tls_ciphers *ciphers, enum hash hash)
{
    char name[][8] = {"SHA256", "SHA384"};
    uint8_t nothing[TLS_SECRET_MAX] = {0};
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name[hash], 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    ciphers->hmac[hash] = mac ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac);
    return ciphers->hmac[hash] && EVP_MAC_init(ciphers->hmac[hash], nothing, sizeof nothing, params) == 1;
}

struct tls_ciphers *tls_ciphers_new(void)
{
    struct tls_ciphers *ciphers = calloc(1, sizeof *ciphers);
    bool good = ciphers != NULL;
    for (unsigned s = 0; good && s < TLS_SUITE_COUNT; s++)
        pool_init(&ciphers->pools[s], TLS_CONNECTION_SIZE + 2 * tls_keys_size(s));
    for (unsigned s = 0; good && s < TLS_SUITE_COUNT; s++)
        good = make_context(&ciphers->contexts[OPEN][s], OPEN, s) && make_context(&ciphers->contexts[SEAL][s], SEAL, s);
    for (unsigned h = 0; good && h < HASH_COUNT; h++)
        good = make_hmac(ciphers, h);
    if (ciphers && !good)
        tls_ciphers_free(&ciphers);
    return ciphers;
}

void tls_ciphers_free(struct tls_ciphers **ciphers)
{
    struct tls_ciphers *c = *ciphers;
    if (!c)
        return;
    for (unsigned s = 0; s < TLS_SUITE_COUNT; s++) {
        pool_free(&c->pools[s]);
        EVP_CIPHER_CTX_free(c->contexts[OPEN][s].evp);
        EVP_CIPHER_CTX_free(c->contexts[SEAL][s].evp);
    }
    for (unsigned h = 0; h < HASH_COUNT; h++)
        EVP_MAC_CTX_free(c->hmac[h]);
    OPENSSL_cleanse(c, sizeof *c);
    free(c);
    *ciphers = NULL;
}

struct pool *tls_ciphers_pool(struct tls_ciphers *ciphers, enum tls_suite suite)
{
    return &ciphers->pools[suite];
}

uint8_t *tls_ciphers_room(struct tls_ciphers *ciphers)
{
    return ciphers->room;
}

/* --- keys --------------------------------------------------------------------------------------------------------- */

size_t tls_keys_size(enum tls_suite suite)
{
    size_t size = offsetof(struct tls_keys, material) + suites[suite].key_size + suites[suite].secret_size;
    return (size + sizeof(uint64_t) - 1) / sizeof(uint64_t) * sizeof(uint64_t);
}

size_t tls_secret_size(enum tls_suite suite)
{
    return suites[suite].secret_size;
}

bool tls_suite_of(unsigned number, enum tls_suite *suite)
{
    for (unsigned s = 0; s < TLS_SUITE_COUNT; s++) {
        if (suites[s].number == number) {
            *suite = s;
            return true;
        }
    }
    return false;
}

static uint8_t *key_of(struct tls_keys *keys)
{
    return keys->material;
}

static uint8_t *secret_of(struct tls_keys *keys)
{
    return keys->material + suites[keys->suite].key_size;
}

/* HKDF-Expand-Label with an empty context, for at most one block of the hash (RFC 5869, 2.3; RFC 8446, 7.1). */
static bool expand(EVP_MAC_CTX *hmac, const uint8_t *secret, size_t secret_size, const char *label, uint8_t *out,
                   size_t size)
{
    uint8_t info[INFO_MAX], block[TLS_SECRET_MAX];
    size_t prefix = strlen(LABEL_PREFIX), n = strlen(label), at = 0, made = 0;
    info[at++] = (uint8_t)(size >> 8);
    info[at++] = (uint8_t)size;
    info[at++] = (uint8_t)(prefix + n);
    memcpy(info + at, LABEL_PREFIX, prefix);
    memcpy(info + at + prefix, label, n);
    at += prefix + n;
    info[at++] = 0;
    info[at++] = 1;
    bool good = EVP_MAC_init(hmac, secret, secret_size, NULL) == 1 && EVP_MAC_update(hmac, info, at) == 1 &&
                EVP_MAC_final(hmac, block, &made, sizeof block) == 1 && made >= size;
    if (good)
        memcpy(out, block, size);
    OPENSSL_cleanse(block, sizeof block);
    return good;
}

static bool derive(struct tls_ciphers *ciphers, struct tls_keys *keys)
{
    static const uint8_t nothing[TLS_SECRET_MAX];
    const struct suite *s = &suites[keys->suite];
    EVP_MAC_CTX *hmac = ciphers->hmac[s->hash];
    keys->seq = 0;
    bool good = expand(hmac, secret_of(keys), s->secret_size, "key", key_of(keys), s->key_size) &&
                expand(hmac, secret_of(keys), s->secret_size, "iv", keys->iv, sizeof keys->iv);
    /* The context keeps no secret. */
    return EVP_MAC_init(hmac, nothing, sizeof nothing, NULL) == 1 && good;
}

bool tls_keys_init(struct tls_ciphers *ciphers, struct tls_keys *keys, enum tls_suite suite, const uint8_t *secret)
{
    keys->suite = (uint8_t)suite;
    memcpy(secret_of(keys), secret, suites[suite].secret_size);
    return derive(ciphers, keys);
}

/* Makes a context forget the key, if it is the one it holds. */
static void unload(struct context *c, const struct tls_keys *keys)
{
    static const uint8_t nothing[TLS_KEY_MAX];
    if (!c->loaded || CRYPTO_memcmp(c->key, keys->material, suites[keys->suite].key_size) != 0)
        return;
    EVP_CipherInit_ex(c->evp, NULL, NULL, nothing, nothing, -1);
    OPENSSL_cleanse(c->key, sizeof c->key);
    c->loaded = false;
}

static void unload_all(struct tls_ciphers *ciphers, const struct tls_keys *keys)
{
    unload(&ciphers->contexts[OPEN][keys->suite], keys);
    unload(&ciphers->contexts[SEAL][keys->suite], keys);
}

bool tls_keys_update(struct tls_ciphers *ciphers, struct tls_keys *keys)
{
    const struct suite *s = &suites[keys->suite];
    unload_all(ciphers, keys);
    return expand(ciphers->hmac[s->hash], secret_of(keys), s->secret_size, "traffic upd", secret_of(keys),
                  s->secret_size) &&
           derive(ciphers, keys);
}

void tls_keys_wipe(struct tls_ciphers *ciphers, struct tls_keys *keys)
{
    unload_all(ciphers, keys);
    OPENSSL_cleanse(keys, tls_keys_size(keys->suite));
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* Gives the context the connection's key, unless it has it, and the nonce of the next record (5.3). */
static EVP_CIPHER_CTX *load(struct tls_ciphers *ciphers, enum direction direction, const struct tls_keys *keys)
{
    struct context *c = &ciphers->contexts[direction][keys->suite];
    size_t size = suites[keys->suite].key_size;
    bool same = c->loaded && CRYPTO_memcmp(c->key, keys->material, size) == 0;
    uint8_t nonce[TLS_IV_SIZE];
    memcpy(nonce, keys->iv, sizeof nonce);
    for (unsigned i = 0; i < 8; i++)
        nonce[sizeof nonce - 1 - i] ^= (uint8_t)(keys->seq >> (8 * i));
    if (EVP_CipherInit_ex(c->evp, NULL, NULL, same ? NULL : keys->material, nonce, -1) != 1) {
        c->loaded = false;
        return NULL;
    }
    if (!same)
        memcpy(c->key, keys->material, size);
    c->loaded = true;
    return c->evp;
}

enum tls_outcome tls_record_find(const uint8_t *data, size_t len, size_t *size, enum tls_alert *alert)
{
    if (len > 0 && data[0] != TLS_CONTENT_DATA) {
        /* Nothing else comes after the handshake, change_cipher_spec included (5). */
        *alert = TLS_ALERT_UNEXPECTED_MESSAGE;
        return TLS_BAD;
    }
    if (len < TLS_HEADER_SIZE)
        return TLS_MORE;
    size_t body = (size_t)data[3] << 8 | data[4];
    if (body > TLS_CIPHER_MAX || body < TLS_TAG_SIZE) {
        *alert = body > TLS_CIPHER_MAX ? TLS_ALERT_RECORD_OVERFLOW : TLS_ALERT_BAD_RECORD_MAC;
        return TLS_BAD;
    }
    *size = TLS_HEADER_SIZE + body;
    return len < *size ? TLS_MORE : TLS_DONE;
}

enum tls_alert tls_record_open(struct tls_ciphers *ciphers, struct tls_keys *keys, uint8_t *record, size_t size,
                               struct tls_plain *plain)
{
    uint8_t *body = record + TLS_HEADER_SIZE;
    size_t len = size - TLS_HEADER_SIZE - TLS_TAG_SIZE;
    int n;
    if (keys->seq == UINT64_MAX)
        return TLS_ALERT_INTERNAL_ERROR;
    EVP_CIPHER_CTX *evp = load(ciphers, OPEN, keys);
    if (!evp)
        return TLS_ALERT_INTERNAL_ERROR;
    if (EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_TAG, TLS_TAG_SIZE, body + len) != 1 ||
        EVP_DecryptUpdate(evp, NULL, &n, record, TLS_HEADER_SIZE) != 1 ||
        EVP_DecryptUpdate(evp, body, &n, body, (int)len) != 1 || EVP_DecryptFinal_ex(evp, body + len, &n) != 1)
        return TLS_ALERT_BAD_RECORD_MAC;
    keys->seq++;
    if (len > TLS_PLAIN_MAX + 1)
        return TLS_ALERT_RECORD_OVERFLOW;
    /* The type is the last byte that is not padding (5.4). */
    while (len > 0 && body[len - 1] == 0)
        len--;
    if (len == 0)
        return TLS_ALERT_UNEXPECTED_MESSAGE;
    *plain = (struct tls_plain){body, len - 1, body[len - 1]};
    return TLS_ALERT_NONE;
}

size_t tls_record_seal(struct tls_ciphers *ciphers, struct tls_keys *keys, enum tls_content type, const uint8_t *data,
                       size_t len, uint8_t *out)
{
    uint8_t *body = out + TLS_HEADER_SIZE;
    size_t inner = len + 1, size = inner + TLS_TAG_SIZE;
    int n;
    EVP_CIPHER_CTX *evp = keys->seq < UINT64_MAX ? load(ciphers, SEAL, keys) : NULL;
    if (!evp)
        return 0;
    out[0] = TLS_CONTENT_DATA;
    out[1] = out[2] = 3;
    out[3] = (uint8_t)(size >> 8);
    out[4] = (uint8_t)size;
    if (len > 0)
        memcpy(body, data, len);
    body[len] = (uint8_t)type;
    if (EVP_EncryptUpdate(evp, NULL, &n, out, TLS_HEADER_SIZE) != 1 ||
        EVP_EncryptUpdate(evp, body, &n, body, (int)inner) != 1 || EVP_EncryptFinal_ex(evp, body + inner, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_GET_TAG, TLS_TAG_SIZE, body + inner) != 1)
        return 0;
    keys->seq++;
    return TLS_HEADER_SIZE + size;
}
