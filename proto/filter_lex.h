/* The tokens of the filter language.
 * Owns: struct filter_lexer. May call: lib/base/utf8. Loop rule: none, pure. Only for proto/filter.c. */
#ifndef MUSTER_PROTO_FILTER_LEX_H
#define MUSTER_PROTO_FILTER_LEX_H

#include "proto/filter.h"

enum filter_token_kind {
    TOKEN_END,
    TOKEN_WORD,
    TOKEN_STRING,       /* text without the quotes, escapes still in it */
    TOKEN_MARK,         /* ( ) , = != < <= > >= */
    TOKEN_UNTERMINATED, /* a string without its end */
    TOKEN_STRANGE,      /* a character that begins no token */
    TOKEN_NOT_UTF8,
};

struct filter_token {
    enum filter_token_kind kind;
    struct slice text;
    size_t offset; /* of its first byte, a quote included */
    unsigned line, column;
};

struct filter_lexer {
    struct slice text;
    size_t at;
    unsigned line, column; /* of `at` */
};

void filter_lexer_init(struct filter_lexer *lexer, struct slice text);
/* After the end comes the end again, after a bad token the same one. */
struct filter_token filter_lexer_next(struct filter_lexer *lexer);

#endif
