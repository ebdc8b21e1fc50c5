/* Calls of hiredis and libpq that fail, as tests/unit/inject.h says (INJECT_CALL), each in the way its manual gives.
 * The linker's --wrap puts these in the place of the real ones. */
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <stdio.h>

#include "tests/unit/inject.h"

#define FAILS inject_strikes(INJECT_CALL, INJECT_CALL)

/* `failure` may use the arguments. */
#define FAILING(result, name, types, names, failure)                                                                   \
    result __real_##name types;                                                                                        \
    result __wrap_##name types;                                                                                        \
    result __wrap_##name types                                                                                         \
    {                                                                                                                  \
        return FAILS ? failure : __real_##name names;                                                                  \
    }

static int reader_fails(redisReader *reader)
{
    reader->err = REDIS_ERR_PROTOCOL;
    snprintf(reader->errstr, sizeof reader->errstr, "injected");
    return REDIS_ERR;
}

FAILING(redisContext *, redisConnectNonBlock, (const char *host, int port), (host, port), NULL)
FAILING(redisContext *, redisConnectUnixNonBlock, (const char *path), (path), NULL)
FAILING(int, redisReaderFeed, (redisReader * reader, const char *data, size_t len), (reader, data, len), REDIS_ERR)
FAILING(int, redisReaderGetReply, (redisReader * reader, void **reply), (reader, reply), reader_fails(reader))

FAILING(PQconninfoOption *, PQconninfoParse, (const char *conninfo, char **message), (conninfo, message), NULL)
FAILING(PGconn *, PQconnectStartParams, (const char *const *keywords, const char *const *values, int expand),
        (keywords, values, expand), NULL)
FAILING(PostgresPollingStatusType, PQconnectPoll, (PGconn * c), (c), PGRES_POLLING_FAILED)
FAILING(int, PQsetnonblocking, (PGconn * c, int arg), (c, arg), -1)
FAILING(int, PQenterPipelineMode, (PGconn * c), (c), 0)
FAILING(int, PQsendPrepare, (PGconn * c, const char *name, const char *sql, int n, const Oid *types),
        (c, name, sql, n, types), 0)
FAILING(int, PQsendQueryPrepared,
        (PGconn * c, const char *name, int n, const char *const *values, const int *lengths, const int *formats,
         int format),
        (c, name, n, values, lengths, formats, format), 0)
FAILING(int, PQpipelineSync, (PGconn * c), (c), 0)
FAILING(int, PQflush, (PGconn * c), (c), -1)
FAILING(int, PQconsumeInput, (PGconn * c), (c), 0)
