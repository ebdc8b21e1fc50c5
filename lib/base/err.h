/* Error codes of every fallible function in Muster.
 * Owns: the enum and its names. May call: nothing. Loop rule: none, pure. */
#ifndef MUSTER_BASE_ERR_H
#define MUSTER_BASE_ERR_H

/* Warns when the caller ignores the result. */
#define MUST_CHECK __attribute__((warn_unused_result))

enum err {
    ERR_OK = 0,
    ERR_NOMEM,       /* allocation failed */
    ERR_INVALID,     /* an argument, a file or a message has bad content */
    ERR_IO,          /* a system call failed; errno or the log says why */
    ERR_CLOSED,      /* the peer closed, or the object is closed */
    ERR_TIMEOUT,     /* the time allowed has passed */
    ERR_LIMIT,       /* a named bound was reached */
    ERR_NOT_FOUND,   /* no such thing */
    ERR_EXISTS,      /* there is one already */
    ERR_UNAVAILABLE, /* a component (PostgreSQL, Redis, peer) is away; may work later */
    ERR_PROTOCOL,    /* the peer broke its protocol */
    ERR_AUTH,        /* the peer is not who it claims, or may not */
    ERR_FENCED,      /* the caller's lease has passed to another */
};

/* Returns the name of `e` in lower case, such as "not_found"; "unknown" for a value outside the enum. */
const char *err_name(enum err e);

#endif
