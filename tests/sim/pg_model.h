/* What PostgreSQL does with the statements of lib/store: a model on plain memory.
 * Owns: struct pg_model, its rows, one function per statement. May call: lib/base, lib/store/pg_internal (the
 * transaction's parameters), libpq (results without a server). Loop rule: none, pure. test_pg_model.c checks answers
 * and tables of random transactions against a real PostgreSQL. */
#ifndef MUSTER_TESTS_SIM_PG_MODEL_H
#define MUSTER_TESTS_SIM_PG_MODEL_H

#include "lib/store/pg_internal.h"

struct row_block {
    int32_t block;
    int16_t first;
    uint8_t *targets, *states, *times; /* states, times: NULL until they are stored */
    uint32_t version;                  /* grows when it is stored: for the oracle */
    size_t target_len, state_len, time_len;
    uint8_t *vals; /* of batch_value_block; NULL: no row */
    size_t vals_len;
};
/* What steers a batch. */
struct row_control {
    bool is; /* there is a row */
    bool paused, rollout;
    int32_t request, handled, window, waves, wave, by_hand, stopped, acted, canceled;
    uint8_t platform_acted[16];
    int64_t not_before_ms, deliver_by_ms, execution_ms, wave_ms;
    char zone[64], key[32]; /* key "": none */
    int64_t supersedes[64];
    size_t supersedes_count; /* 0: NULL */
    int32_t rate_steps, rate_ended, rate_succeeded;
    int64_t paced_ms;
    int32_t retry_after; /* states: bits; 0: nothing is tried again */
    int16_t retry_attempts, retry_factor;
    int64_t retry_initial_ms, retry_max_ms;
    uint8_t *steering, *target; /* target: of a dynamic one; NULL: it is none */
    size_t steering_len, target_len;
    bool sealed;
    int32_t joined;
};
struct row_batch {
    int64_t id;
    int32_t tenant, device_count;
    int16_t priority;
    char *request_id;
    uint8_t *command;
    size_t command_len;
    bool valued;
    uint8_t *described, *defaults; /* of batch_values; NULL: no row */
    size_t described_len, defaults_len;
    int64_t created_ms, expires_ms, routed_ms, cancel_requested_ms, canceled_ms, closed_ms; /* 0: NULL */
    int32_t counts[16];
    struct row_block *blocks; /* by block */
    size_t block_count;
    uint64_t made_by; /* the transaction, by its number */
    struct row_control control;
};
struct row_log {
    int64_t stream, n, at_ms;
    bool looked; /* by the oracle */
    bool late;   /* written when those behind it had been forgotten: it goes with the next ones */
    uint8_t *entries;
    size_t len;
};
struct row_stream {
    int64_t id, created_ms;
    int64_t forgotten; /* no column: the last row of the log that was deleted */
};
struct row_result {
    int64_t batch;
    int32_t seq;
    int16_t attempt;
    uint8_t *result;
    size_t len;
};
struct row_device {
    int32_t tenant, seq;
    char id[32];
    int16_t platform;
    int64_t deleted_ms; /* 0: NULL */
};
struct row_cancel {
    int32_t tenant, seq;
};
/* Devices for which a batch is to be canceled. */
struct row_cancel_some {
    int64_t batch;
    int32_t request, block;
    bool superseded;
    uint8_t slots[128];
};
/* The key a batch has, for whom. */
struct row_key {
    int64_t batch;
    int32_t tenant, block;
    char key[32];
    uint8_t slots[128];
};
/* Some of a batch's devices: canaries, those who have joined, those whose turn has come, those who may not join. */
enum { PART_CANARY = 1, PART_JOINED, PART_TURN, PART_BARRED, PART_TAKEN /* told, not kept */ };
struct row_part {
    int64_t batch;
    int16_t kind;
    int32_t block;
    uint8_t slots[128];
};
struct row_gate {
    int32_t tenant;
    bool closed;
    int64_t number, changed_ms, confirmed_ms; /* confirmed_ms 0: NULL */
};
struct row_revocation {
    int64_t id;
    int32_t tenant, seq;
    int64_t issued_before_ms;
};
struct row_tenant {
    int32_t id, next_seq;
};

/* Rows of one table: `v` is an array of `count`. */
#define TABLE(type)                                                                                                    \
    struct {                                                                                                           \
        type *v;                                                                                                       \
        size_t count, room;                                                                                            \
    }
struct pg_model {
    TABLE(struct row_batch *) batches; /* by id */
    struct row_batch *accepted;        /* by the last batch_accept; NULL: it made none */
    uint64_t transactions;             /* begun so far: memory of one may be that of an earlier one */
    TABLE(struct row_log) log;         /* by stream, n */
    TABLE(struct row_stream) streams;
    TABLE(struct row_result) results;
    TABLE(struct row_device) devices;
    TABLE(struct row_cancel) canceling; /* by tenant, seq */
    TABLE(struct row_revocation) revoked;
    TABLE(struct row_tenant) tenants;
    TABLE(struct row_cancel_some) cancels; /* in the order of asking */
    TABLE(struct row_gate) gates;          /* by tenant */
    TABLE(struct row_part) parts;
    TABLE(struct row_key) keys;
    int64_t gate_number;
    int64_t next_batch, next_stream, next_revocation, worker_number; /* of the sequences */
    int64_t longest_lease;                                           /* of a worker */
    struct {
        char name[32], holder[64];
        int64_t epoch, expires_ms;
    } lease; /* there is one role */
    uint8_t signing_key[32];
    int64_t now_ms; /* the server's clock */
    unsigned mutation;
    /* Others hold the lease's advisory lock: ends their transactions. True when there were any. */
    bool (*end_lock_holders)(void *arg);
    void *arg;
};
void *table_grow(void *v, size_t count, size_t *room, size_t size);
/* Appends: gives the new row, zeroed. */
#define table_add(t)                                                                                                   \
    ((t)->v = table_grow((t)->v, (t)->count, &(t)->room, sizeof *(t)->v),                                              \
     memset(&(t)->v[(t)->count], 0, sizeof *(t)->v), &(t)->v[(t)->count++])

struct pg_model *pg_model_new(void);
void pg_model_free(struct pg_model **m);
struct row_stream *pg_model_stream(struct pg_model *m, int64_t id);
struct row_batch *pg_model_batch(struct pg_model *m, int64_t id);
struct row_block *pg_model_block(struct row_batch *b, int32_t block);
struct row_device *pg_model_device(struct pg_model *m, int32_t tenant, int32_t seq);
/* The request's, which this transaction has made; NULL: it has not. */
struct row_batch *pg_model_made(struct pg_model *m, int64_t tenant, struct slice request_id);
struct row_block *pg_model_add_block(struct row_batch *b, int64_t block, int64_t first, struct slice targets);
/* Its row; with `make` it is there from now on, else it may be NULL. */
struct row_part *pg_model_part(struct pg_model *m, int64_t batch, int16_t kind, int64_t block, bool make);
void pg_model_cancel_device(struct pg_model *m, int32_t tenant, int32_t seq);
/* Owned, with a zero behind it. */
uint8_t *pg_model_copy(struct slice s);

/* One statement being executed. */
struct stmt_call {
    struct pg_model *m;
    const struct pg_txn *txn;
    const struct pg_call *call;
    int64_t reserved; /* first number drawn from the sequence when the transaction began; 0: draw now */
    PGresult *result;
    int columns, row;
    const char *sqlstate; /* set: the transaction ends with this error */
};
typedef void stmt_fn(struct stmt_call *c);
struct model_stmt {
    const char *name;
    stmt_fn *fn;
};
extern const struct model_stmt model_stmts[]; /* made by tables.py from lib/store, by name; ends with a NULL name */
extern const size_t model_stmt_count;
/* Executes call `index` of the transaction. Returns its result, owned; NULL with `sqlstate` set when it fails. */
PGresult *pg_model_execute(struct pg_model *m, const struct pg_txn *txn, int index, int64_t reserved,
                           const char **sqlstate);
/* How many numbers of the sequences the call draws at most. */
int64_t pg_model_draws(const struct pg_txn *txn, int index);
/* Draws so many of the sequence that the call uses; gives the first. */
int64_t pg_model_draw(struct pg_model *m, const struct pg_txn *txn, int index);

/* --- for the statements: parameters from 0 on -------------------------------------------------------------------- */
bool param_null(const struct stmt_call *c, int i);
struct slice param_bytes(const struct stmt_call *c, int i);
int64_t param_int(const struct stmt_call *c, int i);
/* Elements of an array: owned; `data` NULL for a NULL element. */
struct slice *param_array(const struct stmt_call *c, int i, size_t *n);
int64_t int_of_slice(struct slice s);
bool slice_is(struct slice s, const char *text);

/* Rows of the answer, column after column. */
void out_columns(struct stmt_call *c, int n);
void out_int2(struct stmt_call *c, int col, int64_t v);
void out_int4(struct stmt_call *c, int col, int64_t v);
void out_int8(struct stmt_call *c, int col, int64_t v);
void out_bool(struct stmt_call *c, int col, bool v);
void out_bytes(struct stmt_call *c, int col, const void *data, size_t len);
void out_null(struct stmt_call *c, int col);
void out_row(struct stmt_call *c); /* the row is whole */

#endif
