#include "proto/filter.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/base/utf8.h"
#include "muster/v1/command.pb-c.h"
#include "proto/filter_lex.h"

#define VERSION_NUMBERS_MAX 8
#define VERSION_DIGITS_MAX  9
#define FOUND_BYTES         24u /* of a token, in an error */

#define EXPECTED_FIELD "a field (device_id, platform, os_version, model, tag, group, attr.NAME, last_seen), not or ("

enum { CAN_PREFIX = 1, CAN_EXIST = 2, CAN_ORDER = 4 };

static const struct field {
    const char *name;
    enum filter_field field;
    unsigned can;
    const char *operators;
} fields[] = {
    {"device_id", FILTER_DEVICE_ID, CAN_PREFIX, "=, !=, in, not in or startswith"},
    {"platform", FILTER_PLATFORM, 0, "=, !=, in or not in"},
    {"os_version", FILTER_OS_VERSION, CAN_PREFIX | CAN_EXIST | CAN_ORDER,
     "=, !=, <, <=, >, >=, in, not in, startswith or exists"},
    {"model", FILTER_MODEL, CAN_PREFIX | CAN_EXIST, "=, !=, in, not in, startswith or exists"},
    {"tag", FILTER_TAG, CAN_PREFIX | CAN_EXIST, "=, !=, in, not in, startswith or exists"},
    {"group", FILTER_GROUP, 0, "=, !=, in or not in"},
    {"attr.", FILTER_ATTRIBUTE, CAN_PREFIX | CAN_EXIST | CAN_ORDER,
     "=, !=, <, <=, >, >=, in, not in, startswith or exists"},
    {"last_seen", FILTER_LAST_SEEN, 0, "within or not within"},
};

static const struct {
    const char *mark;
    enum filter_op op;
} orders[] = {{"<", FILTER_LESS}, {"<=", FILTER_AT_MOST}, {">", FILTER_MORE}, {">=", FILTER_AT_LEAST}};

struct parser {
    struct filter *f;
    struct filter_lexer lexer;
    struct filter_token token; /* the next one */
    struct filter_error *error;
    unsigned depth;
};

/* --- errors ------------------------------------------------------------------------------------------------------- */

/* As much of a token as an error shows. */
static void describe(char out[48], const struct filter_token *t)
{
    size_t n = t->text.len < FOUND_BYTES ? t->text.len : FOUND_BYTES;
    while (n && n < t->text.len && (t->text.data[n] & 0xc0) == 0x80)
        n--;
    if (t->kind == TOKEN_END)
        snprintf(out, 48, "the end");
    else if (t->kind == TOKEN_NOT_UTF8)
        snprintf(out, 48, "a byte 0x%02x", t->text.data[0]);
    else
        snprintf(out, 48, "\"%.*s%s\"", (int)n, (const char *)t->text.data, n < t->text.len ? "…" : "");
}

/* Returns false, for the caller to return. */
static bool refuse_at(struct parser *p, const struct filter_token *t, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool refuse_at(struct parser *p, const struct filter_token *t, const char *fmt, ...)
{
    va_list ap;
    p->error->line = t->line;
    p->error->column = t->column;
    p->error->offset = t->offset;
    va_start(ap, fmt);
    vsnprintf(p->error->expected, sizeof p->error->expected, fmt, ap);
    va_end(ap);
    if (t->kind == TOKEN_UNTERMINATED)
        snprintf(p->error->expected, sizeof p->error->expected, "a closing \" on the same line");
    else if (t->kind == TOKEN_NOT_UTF8)
        snprintf(p->error->expected, sizeof p->error->expected, "UTF-8");
    describe(p->error->found, t);
    return false;
}

static bool refuse(struct parser *p, const char *expected)
{
    return refuse_at(p, &p->token, "%s", expected);
}

/* --- tokens ------------------------------------------------------------------------------------------------------- */

static void advance(struct parser *p)
{
    p->token = filter_lexer_next(&p->lexer);
}

static bool is_mark(const struct parser *p, const char *mark)
{
    return p->token.kind == TOKEN_MARK && p->token.text.len == strlen(mark) &&
           memcmp(p->token.text.data, mark, p->token.text.len) == 0;
}

static bool is_keyword(const struct parser *p, const char *word)
{
    return p->token.kind == TOKEN_WORD && p->token.text.len == strlen(word) &&
           strncasecmp((const char *)p->token.text.data, word, p->token.text.len) == 0;
}

static bool accept_mark(struct parser *p, const char *mark)
{
    bool yes = is_mark(p, mark);
    if (yes)
        advance(p);
    return yes;
}

static bool accept_keyword(struct parser *p, const char *word)
{
    bool yes = is_keyword(p, word);
    if (yes)
        advance(p);
    return yes;
}

static bool is_reserved(const struct parser *p)
{
    static const char *const words[] = {"and", "or", "not", "in", "within", "startswith", "exists"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is_keyword(p, words[i]))
            return true;
    return false;
}

/* A copy of the token's text without its escapes. The room suffices: no text is longer than what it stands for and a
 * closing quote or the character behind it. */
static const char *keep(struct parser *p, const struct filter_token *t, size_t from)
{
    char *start = p->f->texts + p->f->texts_used, *out = start;
    for (size_t i = from; i < t->text.len; i++) {
        if (t->kind == TOKEN_STRING && t->text.data[i] == '\\')
            i++;
        *out++ = (char)t->text.data[i];
    }
    *out++ = 0;
    p->f->texts_used += (size_t)(out - start);
    return start;
}

/* --- the program -------------------------------------------------------------------------------------------------- */

/* Two "not" behind one another are none, so that their number is bounded with that of the tests. */
static void add_step(struct parser *p, enum filter_step_kind kind, size_t test)
{
    struct filter *f = p->f;
    if (kind == FILTER_NOT && f->steps[f->step_count - 1].kind == FILTER_NOT) {
        f->step_count--;
        return;
    }
    assert(f->step_count < FILTER_STEPS_MAX);
    f->steps[f->step_count++] = (struct filter_step){kind, (uint16_t)test};
}

/* --- values ------------------------------------------------------------------------------------------------------- */

bool filter_is_version(const char *text)
{
    for (unsigned numbers = 1; numbers <= VERSION_NUMBERS_MAX; numbers++, text++) {
        size_t digits = strspn(text, "0123456789");
        if (digits < 1 || digits > VERSION_DIGITS_MAX)
            return false;
        text += digits;
        if (!*text)
            return true;
        if (*text != '.')
            return false;
    }
    return false;
}

bool filter_name_ok(const char *name)
{
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
    return n >= 1 && n <= FILTER_NAME_MAX && !name[n];
}

/* False when there is none of that name. */
static bool platform_of(const char *text, int16_t *platform)
{
    char name[48] = "PLATFORM_";
    size_t at = strlen(name);
    for (; *text && at + 1 < sizeof name; text++)
        name[at++] = (char)(*text >= 'a' && *text <= 'z' ? *text - 32 : *text);
    const ProtobufCEnumValue *v =
        *text ? NULL : protobuf_c_enum_descriptor_get_value_by_name(&muster__v1__platform__descriptor, name);
    if (v)
        *platform = (int16_t)v->value;
    return v != NULL;
}

static const char *expected_value(enum filter_field field)
{
    return field == FILTER_PLATFORM ? "a platform (unspecified, ios, ipados, macos, tvos, android, windows)"
                                    : "a value: a word, or text in double quotes";
}

/* Finds an escape that is none, as a token of its own. */
static bool bad_escape(const struct filter_token *t, struct filter_token *bad)
{
    const uint8_t *text = t->text.data;
    *bad = *t;
    bad->column++; /* of the first byte behind the quote */
    for (size_t i = 0; t->kind == TOKEN_STRING && i < t->text.len; i++) {
        if (text[i] != '\\') {
            bad->column += (text[i] & 0xc0) != 0x80;
        } else if (text[i + 1] == '"' || text[i + 1] == '\\') {
            bad->column += 2;
            i++;
        } else {
            bad->offset += 1 + i;
            bad->text = (struct slice){text + i, 1 + utf8_sequence(text + i + 1, t->text.len - i - 1)};
            return true;
        }
    }
    return false;
}

static bool parse_value(struct parser *p, struct filter_test *test)
{
    struct filter_token t = p->token, bad;
    struct filter_value value = {0};
    if ((t.kind != TOKEN_WORD && t.kind != TOKEN_STRING) || is_reserved(p))
        return refuse(p, expected_value(test->field));
    if (bad_escape(&t, &bad))
        return refuse_at(p, &bad, "\\\" or \\\\");
    if (t.text.len > FILTER_VALUE_MAX)
        return refuse_at(p, &t, "a value of at most %u bytes", FILTER_VALUE_MAX);
    if (p->f->value_count == FILTER_VALUES_MAX)
        return refuse_at(p, &t, "at most %u values", FILTER_VALUES_MAX);
    value.text = keep(p, &t, 0);
    if (test->field == FILTER_PLATFORM && !platform_of(value.text, &value.platform))
        return refuse(p, expected_value(test->field));
    p->f->values[p->f->value_count++] = value;
    test->value_count++;
    advance(p);
    return true;
}

static bool parse_list(struct parser *p, struct filter_test *test)
{
    if (!accept_mark(p, "("))
        return refuse(p, "(");
    do {
        if (!parse_value(p, test))
            return false;
    } while (accept_mark(p, ","));
    return accept_mark(p, ")") || refuse(p, ", or )");
}

static bool parse_version(struct parser *p, struct filter_test *test)
{
    struct filter_token t = p->token;
    if (!parse_value(p, test) || !filter_is_version(p->f->values[test->first_value].text))
        return refuse_at(p, &t, "a version such as 17.2");
    return true;
}

static bool parse_duration(struct parser *p, struct filter_test *test)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'h', 3600 * 1000ll}, {'d', 24 * 3600 * 1000ll}, {'w', 7 * 24 * 3600 * 1000ll}};
    const uint8_t *text = p->token.text.data;
    size_t len = p->token.text.len, at = 0;
    int64_t n = 0;
    for (; p->token.kind == TOKEN_WORD && at < len && at < 6 && text[at] >= '0' && text[at] <= '9'; at++)
        n = n * 10 + (text[at] - '0');
    for (size_t u = 0; u < sizeof units / sizeof *units && at && at + 1 == len; u++)
        if (text[at] == (uint8_t)units[u].unit)
            test->ms = n * units[u].ms;
    if (test->ms < FILTER_SEEN_MIN_MS || test->ms > FILTER_SEEN_MAX_MS)
        return refuse(p, "a duration from 1h to 366d, such as 12h, 7d or 2w");
    advance(p);
    return true;
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

static const struct field *find_field(const struct filter_token *t)
{
    for (size_t i = 0; t->kind == TOKEN_WORD && i < sizeof fields / sizeof *fields; i++) {
        size_t len = strlen(fields[i].name);
        bool prefix = fields[i].field == FILTER_ATTRIBUTE;
        if ((prefix ? t->text.len >= len : t->text.len == len) && memcmp(t->text.data, fields[i].name, len) == 0)
            return &fields[i];
    }
    return NULL;
}

/* "=" and "in" of os_version: by numbers where the values are versions. A list of both kinds is several tests. */
static void split_versions(struct parser *p, struct filter_test *test, size_t *tests)
{
    struct filter *f = p->f;
    struct filter_value text[FILTER_VALUES_MAX];
    size_t texts = 0, versions = 0, first = test->first_value;
    for (size_t i = 0; i < test->value_count; i++) {
        struct filter_value v = f->values[first + i];
        if (filter_is_version(v.text))
            f->values[first + versions++] = v;
        else
            text[texts++] = v;
    }
    if (texts)
        memcpy(&f->values[first + versions], text, texts * sizeof *text);
    if (versions) {
        *tests = texts ? 2 : 1;
        test[0].op = FILTER_EQUAL;
        test[0].value_count = (uint16_t)versions;
        test[1] = test[0];
        test[1].op = FILTER_ANY_OF;
        test[1].first_value = (uint16_t)(first + versions);
        test[1].value_count = (uint16_t)texts;
    }
}

/* A field, and what the condition behind it says. */
struct condition {
    const struct field *field;
    struct filter_test test[2]; /* one of which must match; the second only for versions */
    size_t tests;
    bool opposite; /* none may match */
};

static bool parse_equal(struct parser *p, struct condition *c)
{
    if (!parse_value(p, c->test))
        return false;
    if (c->test->field == FILTER_OS_VERSION)
        split_versions(p, c->test, &c->tests);
    return true;
}

static bool parse_in(struct parser *p, struct condition *c)
{
    if (!parse_list(p, c->test))
        return false;
    if (c->test->field == FILTER_OS_VERSION)
        split_versions(p, c->test, &c->tests);
    return true;
}

/* What may have a "not" before it. */
static bool parse_words(struct parser *p, struct condition *c)
{
    bool seen = c->field->field == FILTER_LAST_SEEN, prefix = c->field->can & CAN_PREFIX;
    c->opposite = accept_keyword(p, "not");
    if (seen && accept_keyword(p, "within")) {
        c->test->op = FILTER_WITHIN;
        return parse_duration(p, c->test);
    }
    if (prefix && accept_keyword(p, "startswith")) {
        c->test->op = FILTER_PREFIX;
        return parse_value(p, c->test);
    }
    if (!seen && accept_keyword(p, "in"))
        return parse_in(p, c);
    return refuse(p, !c->opposite ? c->field->operators : seen ? "within" : prefix ? "in or startswith" : "in");
}

static bool parse_condition(struct parser *p, struct condition *c)
{
    bool seen = c->field->field == FILTER_LAST_SEEN;
    if (!seen && accept_mark(p, "="))
        return parse_equal(p, c);
    if (!seen && accept_mark(p, "!=")) {
        c->opposite = true;
        return parse_equal(p, c);
    }
    for (size_t i = 0; c->field->can & CAN_ORDER && i < sizeof orders / sizeof *orders; i++)
        if (accept_mark(p, orders[i].mark)) {
            c->test->op = orders[i].op;
            return parse_version(p, c->test);
        }
    if (c->field->can & CAN_EXIST && accept_keyword(p, "exists")) {
        c->test->op = FILTER_EXISTS;
        return true;
    }
    return parse_words(p, c);
}

static bool add_tests(struct parser *p, const struct condition *c, const struct filter_token *start)
{
    struct filter *f = p->f;
    if (f->test_count + c->tests > FILTER_TESTS_MAX)
        return refuse_at(p, start, "at most %u tests", FILTER_TESTS_MAX);
    for (size_t i = 0; i < c->tests; i++) {
        f->tests[f->test_count] = c->test[i];
        add_step(p, FILTER_TEST, f->test_count++);
        if (i)
            add_step(p, FILTER_OR, 0);
    }
    if (c->opposite)
        add_step(p, FILTER_NOT, 0);
    return true;
}

static bool parse_test(struct parser *p)
{
    struct filter_token start = p->token;
    struct condition c = {.field = find_field(&start), .tests = 1};
    if (!c.field)
        return refuse(p, EXPECTED_FIELD);
    c.test->field = c.field->field;
    c.test->name = "";
    c.test->first_value = (uint16_t)p->f->value_count;
    if (c.field->field == FILTER_ATTRIBUTE) {
        c.test->name = keep(p, &start, strlen(c.field->name));
        if (!filter_name_ok(c.test->name))
            return refuse(p, "attr.NAME with a name of 1 to 64 of A-Z a-z 0-9 _ . -");
    }
    advance(p);
    return parse_condition(p, &c) && add_tests(p, &c, &start);
}

/* --- expressions: bounded by FILTER_DEPTH_MAX --------------------------------------------------------------------- */

static bool parse_filter(struct parser *p);

static bool parse_one(struct parser *p)
{
    bool inverted = is_keyword(p, "not"), nested = is_mark(p, "(");
    if (!inverted && !nested)
        return parse_test(p);
    if (++p->depth > FILTER_DEPTH_MAX)
        return refuse_at(p, &p->token, "at most %u of ( and not in one another", FILTER_DEPTH_MAX);
    advance(p);
    if (!(inverted ? parse_one(p) : parse_filter(p)))
        return false;
    if (inverted)
        add_step(p, FILTER_NOT, 0);
    else if (!accept_mark(p, ")"))
        return refuse(p, "and, or, )");
    p->depth--;
    return true;
}

static bool parse_both(struct parser *p)
{
    if (!parse_one(p))
        return false;
    while (accept_keyword(p, "and")) {
        if (!parse_one(p))
            return false;
        add_step(p, FILTER_AND, 0);
    }
    return true;
}

static bool parse_filter(struct parser *p)
{
    if (!parse_both(p))
        return false;
    while (accept_keyword(p, "or")) {
        if (!parse_both(p))
            return false;
        add_step(p, FILTER_OR, 0);
    }
    return true;
}

bool filter_parse(struct filter *f, struct slice text, struct filter_error *error)
{
    struct parser p = {.f = f, .error = error};
    f->step_count = f->test_count = f->value_count = f->texts_used = 0;
    filter_lexer_init(&p.lexer, text);
    if (text.len > FILTER_BYTES_MAX) {
        p.token = filter_lexer_next(&p.lexer);
        return refuse_at(&p, &p.token, "at most %u bytes", FILTER_BYTES_MAX);
    }
    advance(&p);
    if (!parse_filter(&p))
        return false;
    return p.token.kind == TOKEN_END || refuse(&p, "and, or, the end");
}
