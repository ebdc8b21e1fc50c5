/* Statements of the audit: see lib/store/db_audit.c. What it holds decides nothing that is simulated. */
#include "tests/sim/pg_model.h"

stmt_fn stmt_ledger_accepted, stmt_ledger_settle;

void stmt_ledger_accepted(struct stmt_call *c)
{
    out_columns(c, 1);
    out_null(c, 0);
    out_row(c);
}

void stmt_ledger_settle(struct stmt_call *c)
{
    out_columns(c, 1);
    out_int4(c, 0, 0);
    out_row(c);
}
