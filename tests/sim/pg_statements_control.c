/* Statements of gates, steered and held batches: see lib/store/db_gate.c, db_control.c, db_guard.c. Simulated callers
 * close no gate, steer no batch and have no budget yet: the tables are empty. */
#include "tests/sim/pg_model.h"

stmt_fn stmt_gate_closed, stmt_gate_list, stmt_gate_confirm, stmt_gate_settle, stmt_control_asked, stmt_control_cancels,
    stmt_control_handled, stmt_guard_release_due;

void stmt_gate_closed(struct stmt_call *c)
{
    static const uint8_t none[12] = {[11] = 23}; /* an int4[] without elements */
    out_columns(c, 2);
    out_int8(c, 0, 0);
    out_bytes(c, 1, none, sizeof none);
    out_row(c);
}

void stmt_gate_list(struct stmt_call *c)
{
    out_columns(c, 7);
}

void stmt_gate_confirm(struct stmt_call *c)
{
    (void)c;
}

void stmt_gate_settle(struct stmt_call *c)
{
    (void)c;
}

void stmt_control_asked(struct stmt_call *c)
{
    out_columns(c, 4);
}

void stmt_control_cancels(struct stmt_call *c)
{
    out_columns(c, 3);
}

void stmt_control_handled(struct stmt_call *c)
{
    (void)c;
}

void stmt_guard_release_due(struct stmt_call *c)
{
    out_columns(c, 1);
}
