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

    execute(c, "DROP TABLE IF EXISTS job; CREATE TABLE job (id bigserial PRIMARY KEY, payload text NOT NULL)",
            PGRES_COMMAND_OK);
    run_begin(r);
    for (uint32_t i = 0; i < r->jobs; i += COPY_ROWS)
        copy(c, i, r->jobs - i < COPY_ROWS ? r->jobs : i + COPY_ROWS);
    PQfinish(c);
}

struct worker {
    PGconn *c;
    char sql[256]; /* commits the last batch, if there was one, and takes the next */
    uint32_t open; /* jobs of the batch that is not committed yet */
    bool begun, idle;
};

static void take(struct worker *w, uint32_t batch)
{
    snprintf(w->sql, sizeof w->sql,
             "%sBEGIN; DELETE FROM job WHERE id = ANY (ARRAY("
             "SELECT id FROM job ORDER BY id LIMIT %u FOR UPDATE SKIP LOCKED)) RETURNING payload",
             w->begun ? "COMMIT; " : "", batch);
    w->begun = true;
    if (PQsendQuery(w->c, w->sql) != 1)
        die("PostgreSQL: %s", PQerrorMessage(w->c));
}

/* What came; the number of jobs whose completion is committed by it. */
static uint32_t answered(struct run *r, struct worker *w)
{
    uint32_t committed = 0, rows = 0;
    PGresult *result;

    while ((result = PQgetResult(w->c))) {
        ExecStatusType status = PQresultStatus(result);
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
            die("PostgreSQL: %s", PQerrorMessage(w->c));
        if (strcmp(PQcmdStatus(result), "COMMIT") == 0)
            committed = w->open;
        rows = (uint32_t)PQntuples(result);
        for (uint32_t i = 0; i < rows; i++)
            run_completed(r, job_read(r, PQgetvalue(result, (int)i, 0), (size_t)PQgetlength(result, (int)i, 0)));
        PQclear(result);
    }
    w->open = rows;
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
        workers[i].c = connect_to(r->at);
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
    for (uint32_t i = 0; i < count; i++)
        PQfinish(workers[i].c);
}
