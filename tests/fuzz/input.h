/* What fuzz targets draw their choices from: the fuzzer's bytes, front to back; zeros when they are used up.
 * Owns: nothing. May call: lib/base/buf, log. Loop rule: none. */
#ifndef MUSTER_TESTS_FUZZ_INPUT_H
#define MUSTER_TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* For log_init: above every level. */
#define SILENT ((enum log_level)(LOG_ERROR + 1))

/* Invariants of the target. */
#define check(holds) ((holds) ? (void)0 : check_failed(__FILE__, __LINE__, #holds))
static inline void __attribute__((noreturn)) check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

static inline uint8_t take_u8(struct slice *in)
{
    uint8_t v;
    return slice_u8(in, &v) ? v : 0;
}

static inline uint16_t take_u16(struct slice *in)
{
    uint8_t low = take_u8(in);
    return (uint16_t)(low | take_u8(in) << 8);
}

/* At most `n` bytes, fewer when there are no more. */
static inline struct slice take_bytes(struct slice *in, size_t n)
{
    struct slice part = {in->data, 0};
    if (n > in->len)
        n = in->len;
    return slice_bytes(in, n, &part) ? part : (struct slice){in->data, 0};
}

/* Returns owned: the bytes in memory of exactly their size, so that a read past the end is seen. Never NULL. */
static inline uint8_t *copy_exactly(struct slice s)
{
    uint8_t *p = malloc(s.len ? s.len : 1);
    if (!p)
        abort();
    if (s.len)
        memcpy(p, s.data, s.len);
    return p;
}

/* Returns owned: the bytes as text, up to their first NUL. Never NULL. */
static inline char *copy_text(struct slice s)
{
    char *p = malloc(s.len + 1);
    if (!p)
        abort();
    if (s.len)
        memcpy(p, s.data, s.len);
    p[s.len] = 0;
    return p;
}

/* Reads every byte, so that the sanitizer sees a slice that is too long. */
static inline unsigned touch(struct slice s)
{
    unsigned sum = 0;
    for (size_t i = 0; i < s.len; i++)
        sum += s.data[i];
    return sum;
}

#endif
