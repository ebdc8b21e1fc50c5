#include "dispatcher/filter_find.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/filter_sets.h"
#include "dispatcher/request.h"
#include "lib/base/clock.h"
#include "lib/store/db_device.h"
#include "lib/store/db_label.h"
#include "proto/filter.h"

/* A group that some filter names. */
struct named_group {
    const char *name; /* points into a filter, or the question */
    size_t unit;      /* of its filter; 0: it has a list of members */
};

struct filter_find {
    struct pg *pg;
    struct filter_question question;
    filter_found_fn *done;
    void *arg;
    struct status st;
    bool store;
    struct filter_unit *units[1 + FILTER_FIND_GROUPS]; /* the first is the question's */
    size_t unit_count, collected;                      /* of so many units the groups are known */
    struct named_group groups[FILTER_FIND_GROUPS];
    size_t group_count, asked; /* so many are asked for */
    unsigned rounds;
};

/* False with a violation of `field` when the text is no filter. */
static bool parse(struct filter *f, struct status *st, const char *field, const char *text)
{
    struct filter_error e;
    if (filter_parse(f, (struct slice){(const uint8_t *)text, strlen(text)}, &e))
        return true;
    status_violation(st, field, "line %u, column %u: expected %s, found %s", e.line, e.column, e.expected, e.found);
    status_metadata(st, "line", "%u", e.line);
    status_metadata(st, "column", "%u", e.column);
    status_metadata(st, "expected", "%s", e.expected);
    return false;
}

void filter_find_check(struct status *st, const char *field, const char *text)
{
    struct filter f;
    bool good = parse(&f, st, field, text);
    (void)good;
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static void end(struct filter_find *f)
{
    struct target_set set = {0};
    if (f->st.code == STATUS_OK && f->unit_count) {
        set = f->units[0]->set;
        f->units[0]->set = (struct target_set){0};
    }
    f->done(f->arg, &f->st, f->store, &set);
    target_set_free(&set);
    for (size_t i = 0; i < f->unit_count; i++)
        filter_unit_free(&f->units[i]);
    free(f);
}

static void store_failed(struct filter_find *f, enum err err, const struct pg_error *error)
{
    f->store = true;
    request_store_status(&f->st, err, error);
}

static void no_memory(struct filter_find *f)
{
    store_failed(f, ERR_NOMEM, NULL);
}

/* --- groups ------------------------------------------------------------------------------------------------------- */

static size_t find_group(const struct filter_find *f, const char *name)
{
    size_t i = 0;
    while (i < f->group_count && strcmp(f->groups[i].name, name) != 0)
        i++;
    return i;
}

/* The groups a unit names and no other has named. */
static void collect_groups(struct filter_find *f, const struct filter *filter)
{
    for (size_t t = 0; t < filter->test_count; t++)
        for (size_t v = 0; filter->tests[t].field == FILTER_GROUP && v < filter->tests[t].value_count; v++) {
            const char *name = filter->values[filter->tests[t].first_value + v].text;
            if (find_group(f, name) < f->group_count)
                continue;
            if (f->group_count == FILTER_FIND_GROUPS) {
                status_set(&f->st, STATUS_FAILED_PRECONDITION, "TOO_MANY_GROUPS",
                           "the filter and its groups name more than %d groups", FILTER_FIND_GROUPS);
                return;
            }
            f->groups[f->group_count++].name = name;
        }
}

/* NULL without memory. */
static struct filter_unit *add_unit(struct filter_find *f)
{
    struct filter_unit *u = filter_unit_new();
    if (u)
        f->units[f->unit_count++] = u;
    else
        no_memory(f);
    return u;
}

/* A filter was checked when it was stored; a program of another version may know the language differently. */
static void add_filter(struct filter_find *f, struct named_group *group, const char *text)
{
    struct filter_error e;
    struct filter_unit *u = add_unit(f);
    group->unit = f->unit_count - 1;
    if (u && !filter_parse(&u->filter, (struct slice){(const uint8_t *)text, strlen(text)}, &e))
        status_set(&f->st, STATUS_FAILED_PRECONDITION, "GROUP_FILTER_INVALID",
                   "the filter of group %s: line %u, column %u: expected %s, found %s", group->name, e.line, e.column,
                   e.expected, e.found);
}

static void ask(struct filter_find *f);

static void on_groups(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct filter_find *f = arg;
    size_t from = f->asked;
    (void)count;
    if (err != ERR_OK) {
        store_failed(f, err, error);
        end(f);
        return;
    }
    f->asked = f->group_count;
    for (size_t i = from; i < f->asked && f->st.code == STATUS_OK; i++) {
        struct db_group row = {0};
        bool found = false;
        for (int r = 0; r < pg_rows(results[0]) && !found; r++) {
            db_group_read(results[0], r, &row);
            found = strcmp(row.name, f->groups[i].name) == 0;
        }
        if (!found) {
            status_set(&f->st, STATUS_NOT_FOUND, "GROUP_NOT_FOUND", "there is no group %s", f->groups[i].name);
            status_metadata(&f->st, "group", "%.60s", f->groups[i].name);
        } else if (*row.filter) {
            add_filter(f, &f->groups[i], row.filter);
        }
    }
    ask(f);
}

static void ask_groups(struct filter_find *f)
{
    const char *names[FILTER_FIND_GROUPS];
    size_t n = 0;
    for (size_t i = f->asked; i < f->group_count; i++)
        names[n++] = f->groups[i].name;
    struct pg_txn *txn = pg_txn_new(f->pg, PG_ANY_LANE);
    db_group_find(txn, f->question.tenant, names, n);
    pg_txn_submit(txn, on_groups, f);
}

/* --- devices ------------------------------------------------------------------------------------------------------ */

static size_t unit_of(void *arg, const char *name)
{
    const struct filter_find *f = arg;
    size_t i = find_group(f, name);
    return i < f->group_count ? f->groups[i].unit : 0;
}

/* Results: who is registered, what the tests mean. In this order: whoever is registered has its labels. */
static void on_blocks(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                      size_t count)
{
    struct filter_find *f = arg;
    (void)count;
    if (err != ERR_OK) {
        store_failed(f, err, error);
        end(f);
        return;
    }
    struct filter_units all = {f->units, f->unit_count, unit_of, f};
    switch (filter_units_evaluate(&all, results[0], results[1])) {
    case ERR_OK:
        break;
    case ERR_EXISTS:
        status_set(&f->st, STATUS_FAILED_PRECONDITION, "GROUP_CYCLE", "a group's filter names the group itself");
        break;
    default:
        no_memory(f);
    }
    end(f);
}

static void ask_blocks(struct filter_find *f)
{
    struct pg_txn *txn = pg_txn_new(f->pg, PG_ANY_LANE);
    if (txn)
        db_device_blocks(txn, f->question.tenant, 0);
    if (!txn || !filter_units_ask(f->units, f->unit_count, txn, f->question.tenant, clock_wall_ms())) {
        pg_txn_free(&txn);
        no_memory(f);
        end(f);
        return;
    }
    pg_txn_submit(txn, on_blocks, f);
}

/* What is still to be known: groups that units name, then what all tests mean. */
static void ask(struct filter_find *f)
{
    for (; f->st.code == STATUS_OK && f->collected < f->unit_count; f->collected++)
        collect_groups(f, &f->units[f->collected]->filter);
    if (f->st.code == STATUS_OK && f->asked < f->group_count && ++f->rounds > FILTER_FIND_NESTED + 1)
        status_set(&f->st, STATUS_FAILED_PRECONDITION, "GROUP_NESTING",
                   "groups with filters name one another more than %d deep", FILTER_FIND_NESTED);
    if (f->st.code != STATUS_OK)
        end(f);
    else if (f->asked < f->group_count)
        ask_groups(f);
    else
        ask_blocks(f);
}

void filter_find(struct pg *pg, const struct filter_question *question, filter_found_fn *done, void *arg)
{
    struct filter_find *f = calloc(1, sizeof *f);
    if (!f) {
        struct status st = {0};
        request_store_status(&st, ERR_NOMEM, NULL);
        done(arg, &st, true, &(struct target_set){0});
        return;
    }
    f->pg = pg;
    f->question = *question;
    f->done = done;
    f->arg = arg;
    struct filter_unit *u = add_unit(f);
    if (u && question->text) {
        bool good = parse(&u->filter, &f->st, "target.filter", question->text);
        (void)good; /* `st` says so */
    } else if (u) {
        filter_unit_groups(u, question->groups, question->group_count);
    }
    ask(f);
}
