#include "lib/store/pg_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/owned.h"
#include "lib/store/pg_hosts.h"

#define BACKOFF_MIN   0.05
#define BACKOFF_MAX   2.0
#define CONNECT_LIMIT 5.0 /* seconds for one attempt over all hosts */

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents);
static void on_io(struct ev_loop *loop, ev_io *w, int revents);

void pg_conn_init(struct pg_conn *conn, struct pg *pg)
{
    conn->pg = pg;
    list_init(&conn->waiting);
    list_init(&conn->under_way);
    conn->down_since = ev_now(pg->loop);
    conn->backoff = BACKOFF_MIN;
    ev_init(&conn->io, on_io);
    ev_set_priority(&conn->io, 1); /* few answers, for which many wait: before what else comes in the same turn */
    ev_init(&conn->timer, on_timer);
}

/* The descriptor may change at every step of connecting, to one of the same number even: always set anew. */
static void watch(struct pg_conn *conn, int events)
{
    ev_io_stop(conn->pg->loop, &conn->io);
    ev_io_set(&conn->io, PQsocket(conn->c), events);
    ev_io_start(conn->pg->loop, &conn->io);
}

static void set_timer(struct pg_conn *conn, double seconds)
{
    ev_timer_stop(conn->pg->loop, &conn->timer);
    ev_timer_set(&conn->timer, seconds, 0.);
    ev_timer_start(conn->pg->loop, &conn->timer);
}

static void forget_prepared(struct pg_conn *conn)
{
    for (int i = 0; i < conn->prepared_count; i++)
        free(conn->prepared[i].message);
    conn->prepared_count = 0;
}

static void disconnect(struct pg_conn *conn)
{
    ev_io_stop(conn->pg->loop, &conn->io);
    ev_timer_stop(conn->pg->loop, &conn->timer);
    PQfinish(conn->c);
    conn->c = NULL;
    conn->write_wanted = conn->recycle = false;
    forget_prepared(conn);
}

void pg_conn_close(struct pg_conn *conn)
{
    disconnect(conn);
    free(conn->prepared);
    free(conn->values);
    free(conn->lengths);
    free(conn->formats);
}

/* libpq's messages end with a newline and may have several lines; the first says it. */
static int first_line(const char *s)
{
    return (int)strcspn(s, "\n");
}

void pg_conn_lost(struct pg_conn *conn, const char *why)
{
    struct pg *pg = conn->pg;
    bool was_up = conn->state == PG_UP;
    char line[256];
    snprintf(line, sizeof line, "%.*s", first_line(why), why);
    if (was_up || conn->backoff >= BACKOFF_MAX)
        log_warn("postgres_lost", "connected=%s reason=%s", was_up ? "yes" : "no", log_quote(line));
    disconnect(conn);
    conn->first_host += conn->state == PG_CONNECTING;
    conn->state = PG_DOWN;
    if (was_up)
        conn->down_since = ev_now(pg->loop);
    struct list *n;
    while ((n = list_pop(&conn->under_way))) {
        struct pg_txn *txn = container_of(n, struct pg_txn, link);
        conn->load--;
        if (txn->prepares)
            pg_txn_destroy(txn);
        else
            pg_fail_soon(pg, txn, ERR_UNAVAILABLE);
    }
    set_timer(conn, conn->backoff);
    conn->backoff = conn->backoff * 2 < BACKOFF_MAX ? conn->backoff * 2 : BACKOFF_MAX;
    if (was_up)
        pg_count_up(pg, -1);
}

static void on_notice(void *arg, const PGresult *result)
{
    (void)arg;
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    log_debug("postgres_notice", "message=%s", log_quote(message ? message : ""));
}

/* Behind the connection string, so that they count. */
static void put_hosts(const struct pg_hosts *hosts, const char **keywords, const char **values)
{
    const char *const names[] = {"host", "hostaddr", "port"}, *const lists[] = {hosts->host, hosts->hostaddr,
                                                                                hosts->port};
    for (int i = 0; i < 3; i++)
        if (lists[i]) {
            *keywords++ = names[i];
            *values++ = lists[i];
        }
}

/* What the connection string says counts, except statement_timeout and the encoding; a peer that has vanished is
 * noticed within about 20 s. */
void pg_conn_start(struct pg_conn *conn)
{
    struct pg *pg = conn->pg;
    const char *keywords[] = {"fallback_application_name",
                              "keepalives_idle",
                              "keepalives_interval",
                              "keepalives_count",
                              "tcp_user_timeout",
                              "dbname",
                              "options",
                              "client_encoding",
                              NULL,
                              NULL,
                              NULL,
                              NULL};
    const char *values[] = {pg->application, "10",   "3",  "3",  "20000", pg->conninfo,
                            pg->options,     "UTF8", NULL, NULL, NULL,    NULL};
    struct pg_hosts hosts;
    if (pg_hosts_from(&hosts, pg->conninfo, conn->first_host))
        put_hosts(&hosts, keywords + 8, values + 8);
    conn->c = PQconnectStartParams(keywords, values, 1);
    pg_hosts_clear(&hosts);
    if (!conn->c || PQstatus(conn->c) == CONNECTION_BAD) {
        pg_conn_lost(conn, conn->c ? PQerrorMessage(conn->c) : "out of memory");
        return;
    }
    PQsetNoticeReceiver(conn->c, on_notice, NULL);
    conn->state = PG_CONNECTING;
    set_timer(conn, CONNECT_LIMIT);
    watch(conn, EV_WRITE);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct pg_conn *conn = container_of(w, struct pg_conn, timer);
    pg_enter(conn->pg);
    if (conn->state == PG_CONNECTING)
        pg_conn_lost(conn, "connecting takes too long");
    else if (conn->state == PG_DOWN)
        pg_conn_start(conn);
    pg_leave(conn->pg);
}

static void connected(struct pg_conn *conn)
{
    if (PQsetnonblocking(conn->c, 1) != 0 || PQenterPipelineMode(conn->c) != 1) {
        pg_conn_lost(conn, PQerrorMessage(conn->c));
        return;
    }
    ev_timer_stop(conn->pg->loop, &conn->timer);
    conn->state = PG_UP;
    conn->backoff = BACKOFF_MIN;
    watch(conn, EV_READ);
    pg_count_up(conn->pg, 1);
    if (!conn->pg->dead)
        pg_conn_send(conn);
}

static void connect_step(struct pg_conn *conn)
{
    switch (PQconnectPoll(conn->c)) {
    case PGRES_POLLING_OK:
        connected(conn);
        break;
    case PGRES_POLLING_READING:
        watch(conn, EV_READ);
        break;
    case PGRES_POLLING_WRITING:
        watch(conn, EV_WRITE);
        break;
    default:
        pg_conn_lost(conn, PQerrorMessage(conn->c));
    }
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

static struct pg_prepared *find_prepared(struct pg_conn *conn, const struct pg_stmt *stmt)
{
    for (int i = 0; i < conn->prepared_count; i++)
        if (conn->prepared[i].stmt == stmt)
            return &conn->prepared[i];
    return NULL;
}

static bool remember_prepared(struct pg_conn *conn, const struct pg_stmt *stmt)
{
    struct pg_prepared *p = find_prepared(conn, stmt);
    if (!p) {
        if (conn->prepared_count == conn->prepared_cap) {
            int cap = conn->prepared_cap ? conn->prepared_cap * 2 : 32;
            struct pg_prepared *more = realloc(conn->prepared, (size_t)cap * sizeof *more);
            if (!more)
                return false;
            conn->prepared = more;
            conn->prepared_cap = cap;
        }
        p = &conn->prepared[conn->prepared_count++];
        *p = (struct pg_prepared){.stmt = stmt};
    }
    p->state = PG_PREPARED;
    return true;
}

/* Each preparation has a Sync of its own, so that no failure of another statement skips it. */
static bool prepare(struct pg_conn *conn, const struct pg_stmt *stmt)
{
    const struct pg_prepared *known = find_prepared(conn, stmt);
    if (known && known->state == PG_PREPARED)
        return true;
    struct pg_txn *txn = pg_txn_new(conn->pg, PG_ANY_LANE);
    if (!txn)
        return false;
    txn->prepares = stmt;
    if (!remember_prepared(conn, stmt) || !PQsendPrepare(conn->c, stmt->name, stmt->sql, 0, NULL) ||
        !PQpipelineSync(conn->c)) {
        pg_txn_destroy(txn);
        return false;
    }
    list_append(&conn->under_way, &txn->link);
    conn->load++;
    return true;
}

static bool reserve_scratch(struct pg_conn *conn, int count)
{
    if (count <= conn->scratch_cap)
        return true;
    int cap = count * 2;
    const char **values = realloc(conn->values, (size_t)cap * sizeof *values);
    if (values)
        conn->values = values;
    int *lengths = realloc(conn->lengths, (size_t)cap * sizeof *lengths);
    if (lengths)
        conn->lengths = lengths;
    int *formats = realloc(conn->formats, (size_t)cap * sizeof *formats);
    if (formats)
        conn->formats = formats;
    if (!values || !lengths || !formats)
        return false;
    for (int i = 0; i < cap; i++)
        conn->formats[i] = 1;
    conn->scratch_cap = cap;
    return true;
}

static bool send_call(struct pg_conn *conn, const struct pg_txn *txn, const struct pg_call *call)
{
    if (!reserve_scratch(conn, call->count))
        return false;
    const char *data = (const char *)buf_slice(&txn->data).data;
    for (int i = 0; i < call->count; i++) {
        const struct pg_param *p = &txn->params[call->first + i];
        conn->values[i] = p->len < 0 ? NULL : data + p->offset;
        conn->lengths[i] = p->len < 0 ? 0 : p->len;
    }
    return PQsendQueryPrepared(conn->c, call->stmt->name, call->count, conn->values, conn->lengths, conn->formats, 1);
}

static bool send_txn(struct pg_conn *conn, struct pg_txn *txn)
{
    for (int i = 0; i < txn->call_count; i++)
        if (!prepare(conn, txn->calls[i].stmt))
            return false;
    for (int i = 0; i < txn->call_count; i++)
        if (!send_call(conn, txn, &txn->calls[i]))
            return false;
    if (!PQpipelineSync(conn->c))
        return false;
    /* libpq has its own copy; results may take a while. */
    buf_free(&txn->data);
    list_append(&conn->under_way, &txn->link);
    return true;
}

/* Writes what libpq has buffered, as far as the socket takes it. */
static void flush(struct pg_conn *conn)
{
    int left = PQflush(conn->c);
    if (left < 0) {
        pg_conn_lost(conn, PQerrorMessage(conn->c));
        return;
    }
    if ((left > 0) != conn->write_wanted) {
        conn->write_wanted = left > 0;
        watch(conn, left > 0 ? EV_READ | EV_WRITE : EV_READ);
    }
}

void pg_conn_send(struct pg_conn *conn)
{
    struct list *n;
    if (list_empty(&conn->waiting))
        return;
    if (list_empty(&conn->under_way))
        conn->heard = ev_now(conn->pg->loop);
    while ((n = list_pop(&conn->waiting))) {
        struct pg_txn *txn = container_of(n, struct pg_txn, link);
        if (send_txn(conn, txn))
            continue;
        conn->load--;
        pg_fail_soon(conn->pg, txn, ERR_UNAVAILABLE);
        pg_conn_lost(conn, PQerrorMessage(conn->c));
        return;
    }
    flush(conn);
}

/* --- results ------------------------------------------------------------------------------------------------------ */

/* What an SQLSTATE (appendix A of PostgreSQL's manual) means to a caller. */
static enum err classify(const char *sqlstate)
{
    static const struct {
        const char *prefix;
        enum err err;
    } table[] = {
        {"57014", ERR_TIMEOUT},     /* query_canceled: the statement timeout */
        {"08", ERR_UNAVAILABLE},    /* connection exception */
        {"53", ERR_UNAVAILABLE},    /* insufficient resources */
        {"57P", ERR_UNAVAILABLE},   /* shutdown, crash, starting up */
        {"25006", ERR_UNAVAILABLE}, /* read only: no longer the primary */
        {"58", ERR_UNAVAILABLE},    /* system error */
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strncmp(sqlstate, table[i].prefix, strlen(table[i].prefix)) == 0)
            return table[i].err;
    return ERR_INVALID;
}

/* Whether the connection must go after this error: it is no longer to the primary, or its prepared statements are no
 * longer what we think (the schema has changed under them, or a pooler gave us another server connection). */
static bool spoils(const char *sqlstate, const char *message)
{
    return strcmp(sqlstate, "25006") == 0 || strncmp(sqlstate, "57P", 3) == 0 ||
           (strcmp(sqlstate, "0A000") == 0 && strstr(message, "cached plan"));
}

static const char *field(const PGresult *r, int code)
{
    const char *s = PQresultErrorField(r, code);
    return s ? s : "";
}

/* The error of a statement that the server refused to prepare, instead of "prepared statement does not exist". */
static void note_error(struct pg_conn *conn, struct pg_txn *txn, PGresult *r)
{
    const char *sqlstate = field(r, PG_DIAG_SQLSTATE);
    const char *message = field(r, PG_DIAG_MESSAGE_PRIMARY);
    if (txn->error) {
        PQclear(r);
        return;
    }
    txn->error = r;
    txn->err = *sqlstate ? classify(sqlstate) : ERR_UNAVAILABLE;
    if (spoils(sqlstate, message))
        conn->recycle = true;
    if (txn->err == ERR_INVALID && strcmp(sqlstate, "26000") == 0 && !txn->prepares &&
        txn->result_count < txn->call_count) {
        const struct pg_prepared *p = find_prepared(conn, txn->calls[txn->result_count].stmt);
        if (p && p->state == PG_REFUSED)
            log_error("statement_refused", "name=%s sqlstate=%s message=%s", p->stmt->name, p->sqlstate,
                      log_quote(p->message ? p->message : ""));
        else
            conn->recycle = true;
    }
}

static void note_refusal(struct pg_conn *conn, const struct pg_txn *txn)
{
    struct pg_prepared *p = find_prepared(conn, txn->prepares);
    if (!p)
        return;
    free(p->message);
    p->state = PG_REFUSED;
    snprintf(p->sqlstate, sizeof p->sqlstate, "%s", field(txn->error, PG_DIAG_SQLSTATE));
    char *message = strdup(field(txn->error, PG_DIAG_MESSAGE_PRIMARY));
    owned(message);
    p->message = message;
}

/* The Sync came: the transaction at the head has committed, or was rolled back. */
static void finish_head(struct pg_conn *conn, struct pg_txn *txn)
{
    list_remove(&txn->link);
    conn->load--;
    if (txn->prepares) {
        if (txn->error)
            note_refusal(conn, txn);
        pg_txn_destroy(txn);
        return;
    }
    if (!txn->error && txn->result_count != txn->call_count)
        txn->err = ERR_UNAVAILABLE;
    pg_finish(conn->pg, txn, txn->err);
}

/* Takes one result, not NULL, of the transaction at the head: there is one. */
static void take_result(struct pg_conn *conn, PGresult *r)
{
    struct pg_txn *txn = container_of(conn->under_way.next, struct pg_txn, link);
    switch (PQresultStatus(r)) {
    case PGRES_PIPELINE_SYNC:
        PQclear(r);
        finish_head(conn, txn);
        break;
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
        if (!txn->prepares && txn->result_count < txn->call_count)
            txn->results[txn->result_count++] = r;
        else
            PQclear(r);
        break;
    case PGRES_FATAL_ERROR:
        note_error(conn, txn, r);
        break;
    default: /* PGRES_PIPELINE_ABORTED: skipped after an error */
        PQclear(r);
    }
}

/* Takes the results that have arrived. libpq puts a NULL behind each statement's results; two in a row mean that it has
 * nothing for us. */
static void take_results(struct pg_conn *conn)
{
    int nulls = 0;
    while (!conn->pg->dead && conn->state == PG_UP && !list_empty(&conn->under_way) && nulls < 2 &&
           !PQisBusy(conn->c)) {
        PGresult *r = PQgetResult(conn->c);
        nulls = r ? 0 : nulls + 1;
        if (r)
            take_result(conn, r);
    }
}

static void read_step(struct pg_conn *conn)
{
    bool ok = PQconsumeInput(conn->c);
    conn->heard = ev_now(conn->pg->loop);
    take_results(conn);
    if (conn->pg->dead || conn->state != PG_UP)
        return;
    if (!ok || PQstatus(conn->c) == CONNECTION_BAD)
        pg_conn_lost(conn, PQerrorMessage(conn->c));
    else if (conn->recycle)
        pg_conn_lost(conn, "the server's state has changed");
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    struct pg_conn *conn = container_of(w, struct pg_conn, io);
    struct pg *pg = conn->pg;
    pg_enter(pg);
    if (conn->state == PG_CONNECTING) {
        connect_step(conn);
    } else {
        if (revents & EV_READ)
            read_step(conn);
        if (revents & EV_WRITE && !pg->dead && conn->state == PG_UP)
            flush(conn);
    }
    pg_leave(pg);
}
