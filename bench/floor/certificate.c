#include "bench/floor/certificate.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define LIFE_S (24 * 3600)

enum err certificate_make(SSL_CTX *ctx)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    enum err e = ERR_NOMEM;

    if (!key || !cert)
        goto out;
    X509_NAME *name = X509_get_subject_name(cert);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -LIFE_S);
    X509_gmtime_adj(X509_getm_notAfter(cert), LIFE_S);
    if (X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"muster-floor", -1, -1, 0) == 1 &&
        X509_set_issuer_name(cert, name) == 1 && X509_set_pubkey(cert, key) == 1 &&
        X509_sign(cert, key, EVP_sha256()) > 0 && SSL_CTX_use_certificate(ctx, cert) == 1 &&
        SSL_CTX_use_PrivateKey(ctx, key) == 1)
        e = ERR_OK;
out:
    X509_free(cert);
    EVP_PKEY_free(key);
    return e;
}
