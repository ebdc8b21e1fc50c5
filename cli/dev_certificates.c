#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/dev.h"

#define VALID_DAYS 365

/* One certificate to be: what differs between the authority's and the server's. */
struct kind {
    const char *name; /* common name */
    long serial;
    const char *constraints, *usage, *extended_usage, *names; /* as in openssl.cnf; NULL: none */
};

static bool add_extension(X509 *cert, X509V3_CTX *context, int nid, const char *value)
{
    if (!value)
        return true;
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, context, nid, value);
    bool ok = extension && X509_add_ext(cert, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

/* Fills and signs; `issuer` NULL for one that signs itself. */
static bool fill(X509 *cert, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key, const struct kind *kind)
{
    X509_NAME *name = X509_get_subject_name(cert);
    X509V3_CTX context;

    if (X509_set_version(cert, X509_VERSION_3) != 1 ||
        ASN1_INTEGER_set(X509_get_serialNumber(cert), kind->serial) != 1 ||
        !X509_gmtime_adj(X509_getm_notBefore(cert), -3600) ||
        !X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * VALID_DAYS) ||
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)kind->name, -1, -1, 0) != 1 ||
        X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : name) != 1 ||
        X509_set_pubkey(cert, key) != 1)
        return false;
    X509V3_set_ctx(&context, issuer ? issuer : cert, cert, NULL, NULL, 0);
    return add_extension(cert, &context, NID_basic_constraints, kind->constraints) &&
           add_extension(cert, &context, NID_key_usage, kind->usage) &&
           add_extension(cert, &context, NID_ext_key_usage, kind->extended_usage) &&
           add_extension(cert, &context, NID_subject_alt_name, kind->names) &&
           add_extension(cert, &context, NID_subject_key_identifier, "hash") &&
           X509_sign(cert, issuer_key ? issuer_key : key, EVP_sha256()) > 0;
}

static bool write_cert(const char *path, X509 *cert)
{
    FILE *out = fopen(path, "we");
    bool ok = out && PEM_write_X509(out, cert) == 1;

    return out && fclose(out) == 0 && ok;
}

static bool write_key(const char *path, EVP_PKEY *key)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    bool ok = out && PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL) == 1;

    if (fd >= 0 && !out)
        close(fd);
    return out && fclose(out) == 0 && ok;
}

static bool make_all(struct dev *dev)
{
    static const struct kind authority = {.name = "muster dev authority",
                                          .serial = 1,
                                          .constraints = "critical,CA:TRUE,pathlen:0",
                                          .usage = "critical,keyCertSign,cRLSign"};
    static const struct kind server = {.name = "localhost",
                                       .serial = 2,
                                       .constraints = "critical,CA:FALSE",
                                       .usage = "critical,digitalSignature",
                                       .extended_usage = "serverAuth",
                                       .names = "DNS:localhost,IP:127.0.0.1,IP:::1"};
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
    X509 *ca = X509_new(), *cert = X509_new();
    bool ok = ca_key && key && ca && cert && fill(ca, ca_key, NULL, NULL, &authority) &&
              fill(cert, key, ca, ca_key, &server) && write_cert(dev->ca, ca) && write_cert(dev->cert, cert) &&
              write_key(dev->key, key);

    /* The authority's key is kept nowhere: there will be no other certificate of it. */
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    X509_free(ca);
    X509_free(cert);
    return ok;
}

bool dev_certificates_make(struct dev *dev)
{
    if (!dev_path(dev->ca, dev->data, "ca.pem") || !dev_path(dev->cert, dev->data, "server.pem") ||
        !dev_path(dev->key, dev->data, "server.key"))
        return false;
    if (access(dev->ca, R_OK) == 0 && access(dev->cert, R_OK) == 0 && access(dev->key, R_OK) == 0)
        return true;
    if (make_all(dev))
        return true;
    fprintf(stderr, "muster dev: no certificate could be made in %s\n", dev->data);
    return false;
}
