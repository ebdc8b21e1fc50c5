/* In place of dispatcher/request.c, which would bring the gRPC server with it: what the leader is told when PostgreSQL
 * does not answer for a dynamic batch. */
#include "dispatcher/request.h"

void request_store_status(struct status *st, enum err err, const struct pg_error *error)
{
    (void)err, (void)error;
    status_set(st, STATUS_UNAVAILABLE, "STORE_UNAVAILABLE", "PostgreSQL is not available");
}
