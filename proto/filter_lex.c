#include "proto/filter_lex.h"

#include <string.h>

#include "lib/base/utf8.h"

void filter_lexer_init(struct filter_lexer *lexer, struct slice text)
{
    *lexer = (struct filter_lexer){.text = text, .line = 1, .column = 1};
}

static uint8_t peek(const struct filter_lexer *l, size_t ahead)
{
    return l->at + ahead < l->text.len ? l->text.data[l->at + ahead] : 0;
}

static bool in_word(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c && strchr("_.:@/+-", (char)c) != NULL);
}

/* Goes over `n` bytes that hold no end of line. */
static void skip(struct filter_lexer *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((l->text.data[l->at + i] & 0xc0) != 0x80) /* not the rest of a character */
            l->column++;
    l->at += n;
}

static void skip_spaces(struct filter_lexer *l)
{
    for (; l->at < l->text.len; l->at++) {
        uint8_t c = l->text.data[l->at];
        if (c == '\n') {
            l->line++;
            l->column = 1;
        } else if (c == ' ' || c == '\t' || c == '\r') {
            l->column++;
        } else {
            return;
        }
    }
}

static size_t word_length(const struct filter_lexer *l)
{
    size_t n = 0;
    while (in_word(peek(l, n)))
        n++;
    return n;
}

static size_t mark_length(const struct filter_lexer *l)
{
    uint8_t c = peek(l, 0);
    if ((c == '<' || c == '>' || c == '!') && peek(l, 1) == '=')
        return 2;
    return c && strchr("(),=<>", c) ? 1 : 0;
}

/* Length with both quotes; 0 when the string does not end on its line. */
static size_t string_length(const struct filter_lexer *l)
{
    for (size_t n = 1; l->at + n < l->text.len; n++) {
        uint8_t c = peek(l, n);
        if (c == '\n')
            return 0;
        if (c == '"')
            return n + 1;
        if (c == '\\')
            n++;
    }
    return 0;
}

static struct filter_token take(struct filter_lexer *l, enum filter_token_kind kind, size_t n)
{
    struct filter_token t = {kind, {l->text.data + l->at, n}, l->at, l->line, l->column};
    skip(l, n);
    return t;
}

/* Does not go on: what is bad stays bad. */
static struct filter_token bad(const struct filter_lexer *l, enum filter_token_kind kind, size_t n)
{
    return (struct filter_token){kind, {l->text.data + l->at, n}, l->at, l->line, l->column};
}

/* The first byte of a string of `n` bytes that is no UTF-8, or `n`. */
static size_t well_formed(const struct filter_lexer *l, size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t len = utf8_sequence(l->text.data + l->at + at, n - at);
        if (!len)
            return at;
        at += len;
    }
    return n;
}

static struct filter_token take_string(struct filter_lexer *l)
{
    size_t n = string_length(l);
    if (!n)
        return bad(l, TOKEN_UNTERMINATED, 1);
    size_t good = well_formed(l, n);
    if (good < n) {
        skip(l, good);
        return bad(l, TOKEN_NOT_UTF8, 1);
    }
    struct filter_token t = take(l, TOKEN_STRING, n);
    t.text = (struct slice){t.text.data + 1, n - 2};
    return t;
}

struct filter_token filter_lexer_next(struct filter_lexer *l)
{
    size_t n;
    skip_spaces(l);
    if (l->at == l->text.len)
        return bad(l, TOKEN_END, 0);
    if ((n = word_length(l)) > 0)
        return take(l, TOKEN_WORD, n);
    if ((n = mark_length(l)) > 0)
        return take(l, TOKEN_MARK, n);
    if (peek(l, 0) == '"')
        return take_string(l);
    n = utf8_sequence(l->text.data + l->at, l->text.len - l->at);
    return n ? bad(l, TOKEN_STRANGE, n) : bad(l, TOKEN_NOT_UTF8, 1);
}
