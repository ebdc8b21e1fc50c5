/* A queue in a PostgreSQL table: COPY to enqueue; workers delete a batch of the oldest rows that nobody has locked,
 * work, and commit. A worker that dies rolls back, and its jobs are there again. */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peers/run.h"
#include "lib/base/buf.h"

#define CONNECTIONS_MAX 16
/* Rows of one COPY: one transaction each. */
#define COPY_ROWS 10000

#define TABLE_DELETE "CREATE TABLE job (id bigserial PRIMARY KEY, payload text NOT NULL)"
/* The index has only what waits; free room on each page keeps updates on it. */
#define TABLE_KEEP                                                                                                     \
    "CREATE TABLE job (id bigserial PRIMARY KEY, payload text NOT NULL, state smallint NOT NULL DEFAULT 0, "           \
    "taken_by int) WITH (fillfactor = 40); CREATE INDEX job_waiting ON job (id) WHERE state = 0"

static PGconn *connect_to(const char *at)
{
    PGconn *c = PQconnectdb(at);

    if (PQstatus(c) != CONNECTION_OK)
        die("PostgreSQL: %s", PQerrorMessage(c));
    return c;
}

static void execute(PGconn *c, const char *sql, ExecStatusType wanted)
{
    PGresult *result = PQexec(c, sql);

    if (PQresultStatus(result) != wanted)
        die("PostgreSQL: %s: %s", sql, PQerrorMessage(c));
    PQclear(result);
}

static void copy(PGconn *c, uint32_t from, uint32_t to)
{
    struct buf rows = {0};
    char job[JOB_BYTES];
    PGresult *result;

    for (uint32_t i = from; i < to; i++) {
        job_write(job, i);
        buf_put(&rows, job, JOB_BYTES);
        buf_put_u8(&rows, '\n');
    }
    execute(c, "COPY job (payload) FROM STDIN", PGRES_COPY_IN);
    if (rows.failed || PQputCopyData(c, (const char *)buf_head(&rows), (int)buf_len(&rows)) != 1 ||
        PQputCopyEnd(c, NULL) != 1)
        die("PostgreSQL: COPY: %s", PQerrorMessage(c));
    while ((result = PQgetResult(c))) {
        if (PQresultStatus(result) != PGRES_COMMAND_OK)
            die("PostgreSQL: COPY: %s", PQerrorMessage(c));
        PQclear(result);
    }
    buf_free(&rows);
}

void skip_locked_enqueue(struct run *r)
{
    PGconn *c = connect_to(r->at);

    execute(c, "SET client_min_messages = warning; DROP TABLE IF EXISTS job", PGRES_COMMAND_OK);
    execute(c, strcmp(r->kind, "keep") == 0 ? TABLE_KEEP : TABLE_DELETE, PGRES_COMMAND_OK);
    run_begin(r);
    for (uint32_t i = 0; i < r->jobs; i += COPY_ROWS)
        copy(c, i, r->jobs - i < COPY_ROWS ? r->jobs : i + COPY_ROWS);
    PQfinish(c);
}

/* Commits what is open, takes the next batch. */
#define DELETE                                                                                                         \
    "%sBEGIN; DELETE FROM job WHERE id = ANY (ARRAY("                                                                  \
    "SELECT id FROM job ORDER BY id LIMIT %u FOR UPDATE SKIP LOCKED)) RETURNING payload, id"
/* The outcome of the last batch, the next one; one commit, as a worker that has a next batch to ask for would. */
#define KEEP                                                                                                           \
    "%sUPDATE job SET state = 1, taken_by = %d WHERE id = ANY (ARRAY("                                                 \
    "SELECT id FROM job WHERE state = 0 ORDER BY id LIMIT %u FOR UPDATE SKIP LOCKED)) RETURNING payload, id"

struct worker {
    PGconn *c;
    int number;
    bool keep, begun, idle;
    uint32_t open;   /* jobs of the batch whose completion is not committed yet */
    struct buf done; /* kind "keep": the statement that stores their outcome, without its end */
};

static void take(struct worker *w, uint32_t batch)
{
    struct buf sql = {0};

    if (w->keep) {
        if (w->open > 0)
            buf_put_str(&w->done, "}'); ");
        buf_put_u8(&w->done, 0);
        buf_printf(&sql, KEEP, w->open > 0 ? (const char *)buf_head(&w->done) : "", w->number, batch);
        buf_reset(&w->done);
    } else {
        buf_printf(&sql, DELETE, w->begun ? "COMMIT; " : "", batch);
    }
    buf_put_u8(&sql, 0);
    if (sql.failed || PQsendQuery(w->c, (const char *)buf_head(&sql)) != 1)
        die("PostgreSQL: %s", PQerrorMessage(w->c));
    w->begun = true;
    buf_free(&sql);
}

/* Works on the rows that were taken; their number. */
static uint32_t work(struct run *r, struct worker *w, const PGresult *rows)
{
    int count = PQntuples(rows);

    for (int i = 0; i < count; i++) {
        run_completed(r, job_read(r, PQgetvalue(rows, i, 0), (size_t)PQgetlength(rows, i, 0)));
        if (w->keep)
            buf_printf(&w->done, "%s%s", i == 0 ? "UPDATE job SET state = 2 WHERE id = ANY ('{" : ",",
                       PQgetvalue(rows, i, 1));
    }
    return (uint32_t)count;
}

/* What came, to its end: with it the completion of the last batch is committed. The number of its jobs. */
static uint32_t answered(struct run *r, struct worker *w)
{
    uint32_t committed = w->open, taken = 0;
    PGresult *result;

    while ((result = PQgetResult(w->c))) {
        ExecStatusType status = PQresultStatus(result);
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
            die("PostgreSQL: %s", PQerrorMessage(w->c));
        if (status == PGRES_TUPLES_OK)
            taken = work(r, w, result);
        PQclear(result);
    }
    w->open = taken;
    return committed;
}

/* Reads what there is; true when a whole answer can be taken without waiting. */
static bool ready(struct worker *w)
{
    if (PQconsumeInput(w->c) != 1)
        die("PostgreSQL: %s", PQerrorMessage(w->c));
    return !PQisBusy(w->c);
}

static void wait_any(struct worker *workers, uint32_t count)
{
    struct pollfd fds[CONNECTIONS_MAX];

    for (uint32_t i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = PQsocket(workers[i].c), .events = workers[i].idle ? 0 : POLLIN};
    poll(fds, count, -1);
}

void skip_locked_process(struct run *r)
{
    struct worker workers[CONNECTIONS_MAX] = {0};
    uint32_t completed = 0, count = r->window < CONNECTIONS_MAX ? r->window : CONNECTIONS_MAX;

    for (uint32_t i = 0; i < count; i++)
        workers[i] = (struct worker){.c = connect_to(r->at), .number = (int)i, .keep = strcmp(r->kind, "keep") == 0};
    run_begin(r);
    for (uint32_t i = 0; i < count; i++)
        take(&workers[i], r->batch);
    while (completed < r->jobs) {
        wait_any(workers, count);
        for (uint32_t i = 0; i < count; i++) {
            struct worker *w = &workers[i];
            if (w->idle || !ready(w))
                continue;
            completed += answered(r, w);
            if (w->open || completed < r->jobs)
                take(w, r->batch);
            w->idle = completed >= r->jobs;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        buf_free(&workers[i].done);
        PQfinish(workers[i].c);
    }
}
