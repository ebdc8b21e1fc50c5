/* What the leader calls for dynamic batches only, which no simulated caller submits: in place of dispatcher/request.c,
 * which would bring the gRPC server with it. */
#include <stdio.h>
#include <stdlib.h>

#include "dispatcher/request.h"

void request_store_status(struct status *st, enum err err, const struct pg_error *error)
{
    (void)st, (void)err, (void)error;
    fprintf(stderr, "sim: request_store_status is not modelled\n");
    abort();
}
