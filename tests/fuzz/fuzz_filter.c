/* The filter language. A filter's program must leave one set, within its bounds, and its values must be in its text;
 * an error must point into the text. */
#include "lib/base/utf8.h"
#include "proto/filter.h"
#include "tests/fuzz/input.h"

static void check_program(const struct filter *f)
{
    size_t depth = 0;
    for (size_t i = 0; i < f->step_count; i++) {
        const struct filter_step *s = &f->steps[i];
        if (s->kind == FILTER_TEST) {
            check(s->test < f->test_count && ++depth <= FILTER_STACK_MAX);
        } else if (s->kind == FILTER_NOT) {
            check(depth >= 1);
        } else {
            check(depth >= 2);
            depth--;
        }
    }
    check(depth == 1);
}

static void check_tests(const struct filter *f)
{
    for (size_t i = 0; i < f->test_count; i++) {
        const struct filter_test *t = &f->tests[i];
        check(t->first_value + t->value_count <= f->value_count);
        check((t->field == FILTER_ATTRIBUTE) == (*t->name != 0) && (!*t->name || filter_name_ok(t->name)));
        check((t->field == FILTER_LAST_SEEN) == (t->op == FILTER_WITHIN));
        check((t->value_count > 0) == (t->op != FILTER_WITHIN && t->op != FILTER_EXISTS));
        for (size_t v = 0; v < t->value_count; v++) {
            const char *text = f->values[t->first_value + v].text;
            check(strlen(text) <= FILTER_VALUE_MAX && utf8_good((struct slice){(const uint8_t *)text, strlen(text)}));
            check(t->op < FILTER_LESS || t->op > FILTER_EQUAL || filter_is_version(text));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct filter f;
    struct filter_error error;
    memset(&error, 0, sizeof error);
    if (filter_parse(&f, (struct slice){data, size}, &error)) {
        check_program(&f);
        check_tests(&f);
    } else {
        check(error.line >= 1 && error.column >= 1 && error.offset <= size);
        check(error.expected[0] && error.found[0] && memchr(error.found, 0, sizeof error.found));
        check(utf8_good((struct slice){(const uint8_t *)error.found, strlen(error.found)}));
    }
    return 0;
}
