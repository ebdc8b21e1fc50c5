/* HTTPS client: POSTs a body and tells the status (libcurl's multi interface on the loop).
 * Owns: struct http_client, its connections and requests. May call: lib/base, libcurl. Loop rule: non-blocking; names
 * are resolved on threads of libcurl's, which a request that has no more time leaves to end by themselves.
 *
 * Only https, with the server's certificate checked; no redirect is followed, no proxy used, nothing of the environment
 * or of files of the user's is looked at. What the server answers beyond the status is read (a little of it) and
 * forgotten. Unless it is allowed, no connection is made to an address that is not public, however its name came to
 * stand for it. */
#ifndef MUSTER_BASE_HTTP_CLIENT_H
#define MUSTER_BASE_HTTP_CLIENT_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct http_client;

struct http_options {
    const char *ca_file; /* PEM of the authorities to trust; NULL: the system's */
    bool allow_private;  /* also addresses that are not public */
    long connect_ms;     /* longest connecting, handshake included; 0: 5,000 */
    long total_ms;       /* longest request; 0: 15,000 */
    long connections;    /* kept open for the next request; 0: 64 */
};
/* Copies. Returns owned, or NULL without memory. */
struct http_client *http_client_new(struct ev_loop *loop, const struct http_options *options);
/* Ends what is under way without a word. */
void http_client_free(struct http_client **client);

struct http_post {
    const char *url;
    const char *const *headers; /* "name: value" each */
    size_t header_count;
    struct slice body;
    /* `status`: what the server answered, 0 when it did not; then `failure` says why, in a few words. Comes from the
     * loop, once. */
    void (*done)(void *arg, int status, const char *failure);
    void *arg;
};
/* Copies. False without memory: there is no `done` then. */
MUST_CHECK bool http_client_post(struct http_client *client, const struct http_post *post);

/* Whether it is an https URL that has a host, no user and no fragment. */
bool http_url_ok(const char *url);

#endif
