#include "dispatcher/leader_fold.h"

#include <stdio.h>
#include <stdlib.h>

#include "dispatcher/cancel.h"
#include "dispatcher/control.h"
#include "dispatcher/leader_gates.h"
#include "dispatcher/leader_load.h"
#include "dispatcher/leader_write.h"
#include "dispatcher/rebuild.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/store/db_control.h"
#include "lib/store/db_gate.h"
#include "lib/store/db_open.h"

#define SCAN_BATCHES  1000  /* never routed batches in one answer */
#define SCAN_LAG_MS   10000 /* a batch may become visible so much later than one with a higher number */
#define SCAN_WHOLE_MS 30000 /* how often all are looked at, whatever came late */
#define CANCELS_MAX   1000
#define ASKED_MAX     10000

struct folder {
    bool polling, wanted, first; /* a poll is under way; another is wanted at once; the log was never read to its end */
    bool begun;                  /* batches are loaded: polls make sense */
    bool more;                   /* the last answer was full */
    bool expecting;              /* outcomes are, since the poll under way began */
    int64_t next_poll_us, last_poll_us, last_full_us; /* full: not of the log alone */
    int64_t delay_us, busy_us;                        /* from one poll to the next; the same while there is news */
    struct reign *reign;
    ev_timer paced;
    struct buf rows;    /* struct log_head, entries; one after another */
    struct buf unknown; /* batches named there that nobody knows */
    /* Where the scan for never routed batches begins: what is not above was seen SCAN_LAG_MS ago or is found by the
     * next whole scan. */
    uint64_t floor, highest, next_floor;
    int64_t floor_ms, whole_ms;
};

struct log_head {
    uint64_t stream, n;
    int64_t at_ms;
    uint64_t len;
};

static void paced_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)events;
    folder_tick(container_of(t, struct folder, paced)->reign);
}

struct folder *folder_new(struct reign *r)
{
    struct folder *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->first = true;
    f->busy_us = FOLD_BUSY_MS * 1000;
    f->reign = r;
    ev_timer_init(&f->paced, paced_timer, FOLD_HINT_MS / 1000., 0);
    return f;
}

void folder_free(struct folder **f)
{
    if (!*f)
        return;
    ev_timer_stop((*f)->reign->loop, &(*f)->paced);
    buf_free(&(*f)->rows);
    buf_free(&(*f)->unknown);
    free(*f);
    *f = NULL;
}

static void poll(struct reign *r);

static void poll_in(struct reign *r, int64_t wait_us)
{
    struct folder *f = r->folder;
    f->next_poll_us = clock_mono_us() + wait_us;
    ev_timer_stop(r->loop, &f->paced);
    ev_timer_set(&f->paced, (double)wait_us / 1e6, 0);
    ev_timer_start(r->loop, &f->paced);
}

/* A hint: at once, or FOLD_HINT_MS after the last poll. */
static void poll_soon(struct reign *r)
{
    struct folder *f = r->folder;
    int64_t wait_us = f->last_poll_us + FOLD_HINT_MS * 1000 - clock_mono_us();
    if (wait_us <= 0)
        poll(r);
    else if (wait_us < f->next_poll_us - clock_mono_us())
        poll_in(r, wait_us);
}

/* After a poll that brought so many bytes of the log. */
static void set_delay(struct folder *f, size_t news)
{
    if (news || f->expecting || !f->delay_us) {
        f->delay_us = f->busy_us;
        f->busy_us = news < FOLD_FEW_BYTES ? reign_longer(f->busy_us, FOLD_BUSY_LONG_MS) : FOLD_BUSY_MS * 1000;
    } else {
        f->delay_us = reign_longer(f->delay_us, FOLD_IDLE_MS);
        f->busy_us = FOLD_BUSY_MS * 1000;
    }
}

static void poll_end(struct reign *r)
{
    struct folder *f = r->folder;
    size_t news = buf_len(&f->rows);
    f->polling = false;
    buf_reset(&f->rows);
    set_delay(f, news);
    poll_in(r, f->delay_us);
    if (f->first && !news) {
        f->first = false;
        r->loaded = true;
        log_info("leader_loaded", "batches=%zu commands=%llu log_rows=%llu", r->set.batches,
                 (unsigned long long)r->set.remaining, (unsigned long long)r->log.rows);
        rebuild_check(r);
    }
    if (f->last_full_us == f->last_poll_us)
        r->looked_us = f->last_poll_us;
    if (!f->more) {
        r->log_read_us = f->last_poll_us;
        rebuild_log_read(r, f->last_poll_us);
    }
    write_pump(r);
    if (f->more || f->first)
        poll(r);
    else if (f->wanted)
        poll_soon(r);
}

/* --- the log's rows ---------------------------------------------------------------------------------------------- */

/* A row of f->rows. */
struct row_place {
    int64_t at_ms; /* no less than of those before it in its stream, whatever its worker's clock did */
    size_t index, offset;
};

static int by_time(const void *a, const void *b)
{
    const struct row_place *x = a, *y = b;
    if (x->at_ms != y->at_ms)
        return x->at_ms < y->at_ms ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* Finds the rows, and up to which time none is missing: of a stream that has more than were read, only up to its last.
 * Returns owned, or NULL without memory. */
static struct row_place *place_rows(const struct folder *f, size_t *count, int64_t *complete_ms)
{
    struct row_place *places = malloc((buf_len(&f->rows) / sizeof(struct log_head) + 1) * sizeof *places);
    const uint8_t *bytes = buf_head(&f->rows);
    uint64_t stream = 0;
    int of_stream = 0;
    *count = 0;
    *complete_ms = INT64_MAX;
    for (size_t at = 0; places && at < buf_len(&f->rows);) {
        struct log_head h;
        memcpy(&h, bytes + at, sizeof h);
        struct row_place *p = &places[*count];
        *p = (struct row_place){h.at_ms, *count, at};
        of_stream = *count && h.stream == stream ? of_stream + 1 : 1;
        stream = h.stream;
        if (of_stream > 1 && p->at_ms < p[-1].at_ms)
            p->at_ms = p[-1].at_ms;
        if (of_stream == FOLD_STREAM_ROWS && p->at_ms < *complete_ms)
            *complete_ms = p->at_ms;
        ++*count;
        at += sizeof h + h.len;
    }
    return places;
}

/* The rows of all streams in the order of their time: where two say different things of a command, as when Redis was
 * lost before one was known, the first holds. Those for which others may come before are read again. */
static void take_rows(struct reign *r)
{
    struct folder *f = r->folder;
    int64_t now = db_clock_ms(r->clock), complete_ms;
    size_t count;
    struct row_place *places = place_rows(f, &count, &complete_ms);
    if (!places)
        r->log.failed = true;
    else if (count)
        qsort(places, count, sizeof *places, by_time);
    for (size_t i = 0; places && i < count && places[i].at_ms <= complete_ms; i++) {
        const uint8_t *row = buf_head(&f->rows) + places[i].offset;
        struct log_head h;
        memcpy(&h, row, sizeof h);
        if (!fold_take(&r->log, &r->set, h.stream, h.n, h.at_ms, (struct slice){row + sizeof h, h.len}, now))
            log_error("ack_log_unreadable", "stream=%llu n=%llu", (unsigned long long)h.stream,
                      (unsigned long long)h.n);
    }
    free(places);
    if (r->log.failed || r->set.failed)
        reign_fail(r, "fold", ERR_NOMEM);
    else
        poll_end(r);
}

/* Batches of the log that are in no list: asks PostgreSQL whether they are open. */
static void find_unknown(struct reign *r)
{
    struct folder *f = r->folder;
    buf_reset(&f->unknown);
    for (struct slice s = buf_slice(&f->rows); s.len;) {
        struct log_head h;
        memcpy(&h, s.data, sizeof h);
        fold_unknown(&r->set, (struct slice){s.data + sizeof h, h.len}, &f->unknown);
        s.data += sizeof h + h.len;
        s.len -= sizeof h + h.len;
    }
    size_t n = buf_len(&f->unknown) / 8;
    if (f->unknown.failed)
        reign_fail(r, "fold", ERR_NOMEM);
    else if (n)
        loader_some(r, (const int64_t *)(void *)buf_head(&f->unknown), n, take_rows);
    else
        take_rows(r);
}

static void keep_rows(struct folder *f, const struct pg_result *result)
{
    buf_reset(&f->rows);
    f->more = false;
    uint64_t stream = 0;
    int of_stream = 0;
    for (int i = 0; i < pg_rows(result); i++) {
        struct slice entries = pg_bytes(result, i, 3);
        struct log_head h = {(uint64_t)pg_int(result, i, 0), (uint64_t)pg_int(result, i, 1), pg_int(result, i, 2),
                             entries.len};
        buf_put(&f->rows, &h, sizeof h);
        buf_put(&f->rows, entries.data, entries.len);
        of_stream = h.stream == stream ? of_stream + 1 : 1;
        stream = h.stream;
        if (of_stream == FOLD_STREAM_ROWS)
            f->more = true;
    }
}

/* --- never routed batches ---------------------------------------------------------------------------------------- */
/* Moves the floor: to the highest number seen SCAN_LAG_MS ago, and to nothing for a whole scan now and then. */
static void move_floor(struct folder *f)
{
    int64_t now = clock_mono_us() / 1000;
    if (now - f->floor_ms >= SCAN_LAG_MS) {
        f->floor = f->next_floor;
        f->next_floor = f->highest;
        f->floor_ms = now;
    }
    if (now - f->whole_ms >= SCAN_WHOLE_MS) {
        f->floor = 0;
        f->whole_ms = now;
    }
}

/* Keeps the unknown ones at the front of `rows`; returns their number. `asked`: all that is asked for of others is
 * known by now, and those may come that wait for it. */
static size_t new_batches(struct reign *r, const struct pg_result *result, bool asked, struct db_open *rows)
{
    struct folder *f = r->folder;
    size_t n = 0;
    int count = pg_rows(result);
    for (int i = 0; i < count; i++) {
        struct db_open row;
        db_open_read(result, i, &row);
        if (row.steer.supersedes && !asked)
            continue;
        if (row.id > f->highest)
            f->highest = row.id;
        if (!open_set_find(&r->set, row.id) && !open_set_is_closed(&r->set, row.id))
            rows[n++] = row;
        if (i == count - 1 && count == SCAN_BATCHES) {
            f->floor = row.id; /* there are more behind it */
            f->wanted = true;
        }
    }
    return n;
}

/* What a full poll says of batches. True when new ones are being loaded; find_unknown goes on then. */
static bool take_batches(struct reign *r, const struct pg_result *const *results)
{
    struct db_open *rows = malloc(SCAN_BATCHES * sizeof *rows);
    if (!rows)
        abort();
    move_floor(r->folder);
    size_t n = new_batches(r, results[0], pg_rows(results[2]) < ASKED_MAX, rows);
    for (int i = 0; i < pg_rows(results[1]); i++)
        cancel_requested(r, (uint64_t)pg_int(results[1], i, 0));
    for (int i = 0; i < pg_rows(results[2]); i++) {
        struct db_control asked;
        db_control_asked_read(results[2], i, &asked);
        control_asked(r, &asked);
    }
    reign_gates_seen(r, results[3]);
    if (n)
        loader_take(r, rows, n, find_unknown);
    free(rows);
    return n > 0;
}

static void got_poll(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                     size_t count)
{
    struct reign *r = arg;
    (void)error;
    if (!reign_back(r))
        return;
    struct folder *f = r->folder;
    if (err) {
        f->polling = false;
        poll_in(r, FOLD_IDLE_MS * 1000);
        return;
    }
    keep_rows(f, results[0]);
    if (f->rows.failed)
        reign_fail(r, "poll", ERR_NOMEM);
    else if (count == 1 || !take_batches(r, results + 1))
        find_unknown(r);
}

static void poll(struct reign *r)
{
    struct folder *f = r->folder;
    int64_t streams[FOLD_STREAMS], ns[FOLD_STREAMS];
    size_t n = fold_cursors(&r->log, streams, ns, FOLD_STREAMS);
    int64_t now = clock_mono_us();
    bool full = f->wanted || f->first || now - f->last_full_us >= FOLD_IDLE_MS * 1000;
    ev_timer_stop(r->loop, &f->paced);
    f->polling = true;
    f->wanted = f->expecting = false;
    f->last_poll_us = now;
    struct pg_txn *txn = pg_txn_new(r->pg, PG_ANY_LANE);
    /* The log first: every batch it names is then visible to the next statement. */
    if (txn)
        db_open_log(txn, streams, ns, n, FOLD_STREAM_ROWS);
    if (txn && full) {
        f->last_full_us = now;
        db_open_unrouted(txn, f->floor, SCAN_BATCHES);
        db_open_canceling(txn, CANCELS_MAX);
        db_control_asked(txn, ASKED_MAX);
        db_gate_list(txn, 0);
    }
    pg_txn_submit(txn, got_poll, reign_hold(r));
}

static void batches_loaded(struct reign *r)
{
    r->folder->begun = true;
    poll(r);
}

void folder_begin(struct reign *r)
{
    loader_all(r, batches_loaded);
}

void folder_expect(struct reign *r)
{
    struct folder *f = r->folder;
    f->expecting = true;
    if (f->begun && !f->polling && f->next_poll_us - clock_mono_us() > f->busy_us)
        poll_in(r, f->busy_us);
}

void folder_wake(struct reign *r)
{
    struct folder *f = r->folder;
    f->wanted = true;
    if (r->loaded && !f->polling)
        poll_soon(r);
}

void folder_rescan(struct reign *r)
{
    r->folder->floor = 0;
    folder_wake(r);
}

void folder_tick(struct reign *r)
{
    struct folder *f = r->folder;
    if (!f->begun)
        return;
    fold_age(&r->log, db_clock_ms(r->clock));
    write_pump(r);
    if (!f->polling && clock_mono_us() >= f->next_poll_us)
        poll(r);
}
