#include "dispatcher/filter_sets.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/db_device.h"
#include "lib/store/db_label.h"

#define HOUR_MS (3600 * 1000ll)

struct filter_unit *filter_unit_new(void)
{
    return calloc(1, sizeof(struct filter_unit));
}

void filter_unit_free(struct filter_unit **unit)
{
    if (*unit) {
        target_set_free(&(*unit)->set);
        for (size_t t = 0; t < FILTER_TESTS_MAX; t++)
            target_set_free(&(*unit)->tests[t]);
    }
    free(*unit);
    *unit = NULL;
}

void filter_unit_groups(struct filter_unit *unit, char *const *names, size_t n)
{
    struct filter *f = &unit->filter;
    assert(n <= FILTER_VALUES_MAX);
    f->tests[0] = (struct filter_test){FILTER_GROUP, FILTER_ANY_OF, "", 0, (uint16_t)n, 0};
    f->test_count = 1;
    for (size_t i = 0; i < n; i++)
        f->values[i].text = names[i];
    f->value_count = n;
    f->steps[0] = (struct filter_step){FILTER_TEST, 0};
    f->step_count = 1;
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

/* Platforms are known with who is registered; all other tests are asked. */
static bool is_asked(const struct filter_test *test)
{
    return test->field != FILTER_PLATFORM;
}

/* The statement's tests and their values, as they grow. */
struct asking {
    struct db_filter_test *tests;
    const char **values;
    char (*names)[sizeof DB_LABEL_ATTRIBUTE + FILTER_NAME_MAX];
    size_t test_count, value_count;
};

static const char *field_name(struct asking *a, const struct filter_test *t)
{
    switch (t->field) {
    case FILTER_DEVICE_ID:
        return "device_id";
    case FILTER_GROUP:
        return "group";
    case FILTER_LAST_SEEN:
        return "last_seen";
    case FILTER_OS_VERSION:
        return DB_LABEL_OS_VERSION;
    case FILTER_MODEL:
        return DB_LABEL_MODEL;
    case FILTER_TAG:
        return DB_LABEL_TAG;
    case FILTER_ATTRIBUTE:
    case FILTER_PLATFORM:
    default: {
        char *name = a->names[a->test_count];
        snprintf(name, sizeof a->names[0], "%s%s", DB_LABEL_ATTRIBUTE, t->name);
        return name;
    }
    }
}

static void add_tests(struct asking *a, struct filter_unit *u, int64_t now_ms)
{
    for (size_t i = 0; i < u->filter.test_count; i++) {
        const struct filter_test *t = &u->filter.tests[i];
        if (!is_asked(t))
            continue;
        struct db_filter_test *out = &a->tests[a->test_count];
        *out = (struct db_filter_test){field_name(a, t), (int)t->op, &a->values[a->value_count], t->value_count};
        for (size_t v = 0; v < t->value_count; v++)
            a->values[a->value_count++] = u->filter.values[t->first_value + v].text;
        if (t->op == FILTER_WITHIN) {
            /* The hour in which the time asked for begins counts as a whole. */
            snprintf(u->hours[i], sizeof u->hours[i], "%" PRId64, (int64_t)((now_ms - t->ms) / HOUR_MS));
            a->values[a->value_count++] = u->hours[i];
            out->count = 1;
        }
        a->test_count++;
    }
}

bool filter_units_ask(struct filter_unit *const *units, size_t n, struct pg_txn *txn, int32_t tenant, int64_t now_ms)
{
    size_t tests = 1, values = 1;
    for (size_t i = 0; i < n; i++) {
        tests += units[i]->filter.test_count;
        values += units[i]->filter.value_count + units[i]->filter.test_count;
    }
    struct asking a = {.tests = calloc(tests, sizeof *a.tests),
                       .values = calloc(values, sizeof *a.values),
                       .names = calloc(tests, sizeof *a.names)};
    bool made = a.tests && a.values && a.names;
    for (size_t i = 0; made && i < n; i++)
        add_tests(&a, units[i], now_ms);
    made = made && db_filter_blocks(txn, tenant, a.tests, a.test_count);
    free(a.tests);
    free((void *)a.values);
    free(a.names);
    return made;
}

/* --- evaluating --------------------------------------------------------------------------------------------------- */

struct evaluation {
    const struct filter_units *all;
    struct target_set registered;
    enum err err;
};

/* The test that the n-th of the statement stands for; NULL when there is none. */
static struct target_set *asked_test(const struct filter_units *all, size_t n)
{
    for (size_t u = 0; u < all->count; u++)
        for (size_t t = 0; t < all->units[u]->filter.test_count; t++)
            if (is_asked(&all->units[u]->filter.tests[t]) && n-- == 0)
                return &all->units[u]->tests[t];
    return NULL;
}

static void read_tests(const struct filter_units *all, const struct pg_result *r)
{
    struct target_set *set = NULL;
    struct db_filter_block b;
    size_t test = SIZE_MAX;
    for (int row = 0; row < pg_rows(r); row++) {
        if (!db_filter_block_read(r, row, &b))
            continue;
        if (b.test != test)
            set = asked_test(all, b.test);
        test = b.test;
        if (set)
            target_set_add(set, b.block, &b.slots);
    }
}

static bool has_platform(const struct filter *f, const struct filter_test *t, int16_t platform)
{
    for (size_t v = 0; v < t->value_count; v++)
        if (f->values[t->first_value + v].platform == platform)
            return true;
    return false;
}

static void read_registered(struct evaluation *e, const struct pg_result *r)
{
    struct db_device_block b;
    for (int row = 0; row < pg_rows(r); row++) {
        if (!db_device_block_read(r, row, &b))
            continue;
        target_set_add(&e->registered, b.block, &b.slots);
        for (size_t u = 0; u < e->all->count; u++) {
            struct filter_unit *unit = e->all->units[u];
            for (size_t t = 0; t < unit->filter.test_count; t++)
                if (!is_asked(&unit->filter.tests[t]) &&
                    has_platform(&unit->filter, &unit->filter.tests[t], b.platform))
                    target_set_add(&unit->tests[t], b.block, &b.slots);
        }
    }
}

/* What the program leaves of one block. */
static struct bitmap evaluate_block(const struct filter_unit *u, const struct target_block *registered)
{
    struct bitmap stack[FILTER_STACK_MAX];
    size_t n = 0;
    for (size_t i = 0; i < u->filter.step_count; i++) {
        const struct filter_step *s = &u->filter.steps[i];
        if (s->kind == FILTER_TEST) {
            const struct target_block *b = target_set_find(&u->tests[s->test], registered->block);
            assert(n < FILTER_STACK_MAX);
            stack[n++] = b ? b->slots : (struct bitmap){{0}};
        } else if (s->kind == FILTER_NOT) {
            struct bitmap rest = registered->slots;
            bitmap_and_not(&rest, &stack[n - 1]);
            stack[n - 1] = rest;
        } else {
            n--;
            if (s->kind == FILTER_AND)
                bitmap_and(&stack[n - 1], &stack[n]);
            else
                bitmap_or(&stack[n - 1], &stack[n]);
        }
    }
    assert(n == 1);
    bitmap_and(&stack[0], &registered->slots);
    return stack[0];
}

static void evaluate(struct evaluation *e, size_t unit);

/* Adds the members of the groups with filters that a test names. Each unit is evaluated once, so that this goes no
 * deeper than there are units: FILTER_FIND_GROUPS. */
static void add_groups(struct evaluation *e, struct filter_unit *u, size_t test)
{
    const struct filter_test *t = &u->filter.tests[test];
    for (size_t v = 0; v < t->value_count && e->err == ERR_OK; v++) {
        size_t unit = e->all->unit_of(e->all->arg, u->filter.values[t->first_value + v].text);
        if (!unit)
            continue;
        evaluate(e, unit);
        const struct target_set *members = &e->all->units[unit]->set;
        for (size_t b = 0; b < members->count; b++)
            target_set_add(&u->tests[test], members->blocks[b].block, &members->blocks[b].slots);
    }
}

static void evaluate(struct evaluation *e, size_t unit)
{
    struct filter_unit *u = e->all->units[unit];
    if (u->stage == UNIT_UNDER_WAY)
        e->err = ERR_EXISTS;
    if (u->stage != UNIT_NEW)
        return;
    u->stage = UNIT_UNDER_WAY;
    for (size_t t = 0; t < u->filter.test_count && e->err == ERR_OK; t++) {
        if (u->filter.tests[t].field == FILTER_GROUP)
            add_groups(e, u, t);
        if (u->tests[t].failed)
            e->err = ERR_NOMEM;
    }
    for (size_t i = 0; i < e->registered.count && e->err == ERR_OK; i++) {
        struct bitmap slots = evaluate_block(u, &e->registered.blocks[i]);
        target_set_add(&u->set, e->registered.blocks[i].block, &slots);
    }
    if (u->set.failed)
        e->err = ERR_NOMEM;
    u->stage = UNIT_DONE;
}

enum err filter_units_evaluate(const struct filter_units *all, const struct pg_result *registered,
                               const struct pg_result *tests)
{
    struct evaluation e = {.all = all};
    read_registered(&e, registered);
    read_tests(all, tests);
    if (e.registered.failed)
        e.err = ERR_NOMEM;
    else
        evaluate(&e, 0);
    target_set_free(&e.registered);
    return e.err;
}
