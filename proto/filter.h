/* The filter language: which devices a batch addresses, in words. Text to a program of tests.
 * Owns: struct filter, its grammar and limits. May call: lib/base buffers and errors, generated enums. Loop rule: none,
 * pure: allocates nothing.
 *
 *   filter     = both { "or" both } ;
 *   both       = one { "and" one } ;
 *   one        = "not" one | "(" filter ")" | test ;
 *   test       = text_field ( "=" | "!=" ) value
 *              | text_field [ "not" ] "in" "(" value { "," value } ")"
 *              | text_field [ "not" ] "startswith" value      (not of platform and group)
 *              | text_field "exists"                          (of os_version, model, tag and attr.NAME)
 *              | number_field ( "<" | "<=" | ">" | ">=" ) version
 *              | "last_seen" [ "not" ] "within" duration ;
 *   text_field = "device_id" | "platform" | "os_version" | "model" | "tag" | "group" | "attr." name ;
 *   number_field = "os_version" | "attr." name ;
 *   value      = word | string ;
 *   word       = character { character } ;                    of A-Z a-z 0-9 _ . : @ / + -
 *   string     = '"' { any character, \" or \\ } '"' ;
 *   version    = number { "." number } ;                      at most 8 numbers of at most 9 digits
 *   duration   = number ( "h" | "d" | "w" ) ;                 1h to 366d
 *
 * Keywords may be in capitals; names of fields may not. Spaces, tabs and ends of lines separate. A device with several
 * tags matches when one does; "!=" and the forms with "not" are the opposite of those without, so that a device that
 * has no such attribute matches them. "=" and "in" of os_version compare versions where the value is one, by their
 * numbers (17.10 > 17.2, 17.2 = 17.2.0), as do "<" and its like; everything else compares bytes. */
#ifndef MUSTER_PROTO_FILTER_H
#define MUSTER_PROTO_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

#define FILTER_BYTES_MAX  4096u /* of the text: what fits on a screen, and people can still review */
#define FILTER_DEPTH_MAX  16u   /* of parentheses and "not" in one another */
#define FILTER_TESTS_MAX  64u   /* each is a look-up in the database */
#define FILTER_VALUES_MAX 256u  /* of all tests together; longer lists are a target of their own: devices */
#define FILTER_VALUE_MAX  256u  /* bytes of one value */
#define FILTER_NAME_MAX   64u   /* bytes of an attribute's name */

#define FILTER_SEEN_MIN_MS (3600 * 1000ll)            /* last_seen is kept to the hour */
#define FILTER_SEEN_MAX_MS (366 * 24 * 3600 * 1000ll) /* and for a little more than a year */

enum filter_field {
    FILTER_DEVICE_ID,
    FILTER_PLATFORM,
    FILTER_OS_VERSION,
    FILTER_MODEL,
    FILTER_TAG,
    FILTER_GROUP,
    FILTER_ATTRIBUTE,
    FILTER_LAST_SEEN,
};

enum filter_op {
    FILTER_ANY_OF, /* one of the values, byte by byte; of platform: of the numbers */
    FILTER_PREFIX, /* begins with the value */
    FILTER_EXISTS, /* has any */
    FILTER_LESS,   /* these five compare as versions */
    FILTER_AT_MOST,
    FILTER_MORE,
    FILTER_AT_LEAST,
    FILTER_EQUAL,
    FILTER_WITHIN, /* in the last `ms` */
};

struct filter_test {
    enum filter_field field;
    enum filter_op op;
    const char *name; /* of the attribute, else "" */
    uint16_t first_value, value_count;
    int64_t ms;
};

struct filter_value {
    const char *text; /* without quotes and escapes; UTF-8 */
    int16_t platform; /* of platform: muster.v1.Platform */
};

/* Postfix: a test pushes its set, the others combine the topmost. What is left at the end is the answer. */
enum filter_step_kind { FILTER_TEST, FILTER_NOT, FILTER_AND, FILTER_OR };
struct filter_step {
    enum filter_step_kind kind;
    uint16_t test;
};

/* One for each test, one less to join them, and a "not" behind each of those. */
#define FILTER_STEPS_MAX (4 * FILTER_TESTS_MAX)
/* A pending left side of "or" and one of "and" at every depth, and the tests that a list of versions and words makes.
 */
#define FILTER_STACK_MAX (2 * (FILTER_DEPTH_MAX + 1) + 2)

/* By value; must not be moved, its texts point into it. */
struct filter {
    struct filter_step steps[FILTER_STEPS_MAX];
    size_t step_count;
    struct filter_test tests[FILTER_TESTS_MAX];
    size_t test_count;
    struct filter_value values[FILTER_VALUES_MAX];
    size_t value_count;
    char texts[2 * FILTER_BYTES_MAX];
    size_t texts_used;
};

/* Where a text stops being a filter. */
struct filter_error {
    unsigned line, column; /* from 1; columns count characters (code points), not bytes */
    size_t offset;         /* in bytes, from 0 */
    char expected[128];    /* "a version such as 17.2" */
    char found[48];        /* "the end", or the token in quotes, cut */
};

/* False with `error` filled when the text is no filter. */
MUST_CHECK bool filter_parse(struct filter *f, struct slice text, struct filter_error *error);
/* Whether the text is a version: see the grammar. */
bool filter_is_version(const char *text);
/* Names of attributes: 1 to 64 bytes of [A-Za-z0-9_.-]. */
bool filter_name_ok(const char *name);

#endif
