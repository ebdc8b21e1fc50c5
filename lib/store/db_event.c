#include "lib/store/db_event.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void db_event_range(struct pg_txn *txn, int32_t tenant, int64_t after)
{
    static const struct pg_stmt stmt = {
        "event_range", "SELECT coalesce(h.last, 0), coalesce((SELECT l.first FROM event_log l"
                       " WHERE l.tenant_id = $1::integer ORDER BY l.last LIMIT 1), 0),"
                       " (SELECT l.events[x.after - l.first + 1] FROM event_log l WHERE l.tenant_id = $1::integer"
                       " AND l.last >= x.after ORDER BY l.last LIMIT 1)"
                       " FROM (SELECT 1) AS one LEFT JOIN event_head h ON h.tenant_id = $1::integer"
                       " CROSS JOIN LATERAL (SELECT CASE WHEN $2::bigint < 0 THEN coalesce(h.last, 0)"
                       " ELSE $2::bigint END AS after) AS x"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, after);
}

void db_event_heads(struct pg_txn *txn, const int32_t *tenants, size_t n)
{
    static const struct pg_stmt stmt = {
        "event_heads", "SELECT h.tenant_id, h.last FROM event_head h WHERE h.tenant_id = ANY ($1::integer[])"};
    pg_txn_add(txn, &stmt);
    pg_put_int4_array(txn, tenants, n);
}

void db_event_page(struct pg_txn *txn, int32_t tenant, int64_t after, int rows)
{
    static const struct pg_stmt stmt = {"event_page",
                                        "SELECT l.first, l.events FROM event_log l WHERE l.tenant_id = $1::integer"
                                        " AND l.last > $2::bigint ORDER BY l.last LIMIT $3::integer"};
    pg_txn_add(txn, &stmt);
    pg_put_int4(txn, tenant);
    pg_put_int8(txn, after);
    pg_put_int4(txn, rows);
}

struct walk {
    int64_t id, after;
    void (*each)(void *arg, int64_t id, struct slice text);
    void *arg;
};

static void on_text(void *arg, struct slice text)
{
    struct walk *w = arg;
    int64_t id = w->id++;
    if (id > w->after)
        w->each(w->arg, id, text);
}

void db_event_each(const struct pg_result *r, int row, int64_t after,
                   void (*each)(void *arg, int64_t id, struct slice text), void *arg)
{
    struct walk w = {pg_int(r, row, 0), after, each, arg};
    pg_bytes_array(r, row, 1, on_text, &w);
}

/* A number with a comma behind it. */
static bool number(struct slice *text, int64_t *out)
{
    char digits[24];
    size_t n = 0;
    while (n < text->len && n + 1 < sizeof digits && text->data[n] >= '0' && text->data[n] <= '9') {
        digits[n] = (char)text->data[n];
        n++;
    }
    digits[n] = 0;
    if (!n || n >= text->len || text->data[n] != ',')
        return false;
    errno = 0;
    *out = strtoll(digits, NULL, 10);
    text->data += n + 1;
    text->len -= n + 1;
    return errno == 0;
}

bool db_event_read(struct slice text, struct db_event *out)
{
    int64_t kind;
    if (!number(&text, &kind) || !number(&text, &out->batch) || !number(&text, &out->at_ms) || kind > 1000)
        return false;
    out->kind = (int)kind;
    out->data = text;
    return true;
}

void db_event_forget(struct pg_txn *txn, int64_t before_ms, int rows)
{
    static const struct pg_stmt stmt = {"event_forget", "SELECT event_forget($1::bigint, $2::integer)"};
    pg_txn_add(txn, &stmt);
    pg_put_int8(txn, before_ms);
    pg_put_int4(txn, rows);
}
