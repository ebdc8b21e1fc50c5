#include "lib/base/err.h"

const char *err_name(enum err e)
{
    static const char *const names[] = {
        [ERR_OK] = "ok",
        [ERR_NOMEM] = "no_memory",
        [ERR_INVALID] = "invalid",
        [ERR_IO] = "io",
        [ERR_CLOSED] = "closed",
        [ERR_TIMEOUT] = "timeout",
        [ERR_LIMIT] = "limit",
        [ERR_NOT_FOUND] = "not_found",
        [ERR_EXISTS] = "exists",
        [ERR_PROTOCOL] = "protocol",
        [ERR_UNAVAILABLE] = "unavailable",
        [ERR_AUTH] = "auth",
        [ERR_FENCED] = "fenced",
    };
    return (unsigned)e < sizeof names / sizeof *names ? names[e] : "unknown";
}
