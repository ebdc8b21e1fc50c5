/* Statements of the audit and of events: see lib/store/db_audit.c, db_event.c. What they hold decides nothing that is
 * simulated. */
#include "tests/sim/pg_model.h"

stmt_fn stmt_ledger_accepted, stmt_ledger_settle, stmt_event_forget, stmt_webhook_take, stmt_presence_tenants;

void stmt_ledger_accepted(struct stmt_call *c)
{
    out_columns(c, 1);
    out_null(c, 0);
    out_row(c);
}

void stmt_ledger_settle(struct stmt_call *c)
{
    out_columns(c, 2);
    out_int4(c, 0, 0);
    out_int4(c, 1, 0);
    out_row(c);
}

void stmt_event_forget(struct stmt_call *c)
{
    out_columns(c, 1);
    out_int4(c, 0, 0);
    out_row(c);
}

/* There are no web hooks. */
void stmt_webhook_take(struct stmt_call *c)
{
    out_columns(c, 8);
}

/* Nobody wants to be told. */
void stmt_presence_tenants(struct stmt_call *c)
{
    out_columns(c, 3);
}
