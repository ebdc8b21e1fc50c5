/* The pure parts of gRPC: message prefixes, timeouts, percent-encoding, base64, statuses. The first byte chooses. */
#include <stdlib.h>
#include <string.h>

#include "proto/grpc_framing.h"
#include "proto/status.h"
#include "tests/fuzz/input.h"

#define MESSAGE_MAX 300

/* Lengths and contents of all messages, and how it ended, in one buffer. */
static void deframe(struct slice in, size_t step, struct buf *out)
{
    struct grpc_deframer d = {.max = MESSAGE_MAX};
    enum grpc_deframe result = GRPC_DEFRAME_MORE;
    while (in.len && result != GRPC_DEFRAME_BAD) {
        struct slice piece = {in.data, in.len < step ? in.len : step};
        in.data += piece.len;
        in.len -= piece.len;
        while (piece.len && (result = grpc_deframe(&d, &piece)) == GRPC_DEFRAME_DONE) {
            check(buf_len(&d.body) <= MESSAGE_MAX);
            buf_put_u32be(out, (uint32_t)buf_len(&d.body));
            buf_put(out, buf_slice(&d.body).data, buf_len(&d.body));
            grpc_deframer_next(&d);
        }
        if (result == GRPC_DEFRAME_BAD)
            break;
        check(piece.len == 0);
    }
    buf_put_u8(out, result == GRPC_DEFRAME_BAD ? (uint8_t)d.code : 0);
    buf_put_u8(out, grpc_deframer_idle(&d));
    buf_free(&d.body);
}

static void fuzz_deframer(struct slice in)
{
    struct buf whole = {0}, pieces = {0};
    uint8_t step;
    if (!slice_u8(&in, &step))
        return;
    deframe(in, in.len + 1, &whole);
    deframe(in, (size_t)step + 1, &pieces);
    check(buf_len(&whole) == buf_len(&pieces));
    check(memcmp(buf_slice(&whole).data, buf_slice(&pieces).data, buf_len(&whole)) == 0);
    buf_free(&whole);
    buf_free(&pieces);
}

static void fuzz_timeout(struct slice in)
{
    char *text = copy_text(in), again[GRPC_TIMEOUT_SIZE];
    int64_t ns, back;
    if (grpc_timeout_parse(text, &ns)) {
        check(ns >= 0);
        grpc_timeout_format(ns, again);
        check(grpc_timeout_parse(again, &back) && back >= ns);
    }
    free(text);
}

static void fuzz_percent(struct slice in)
{
    char *text = copy_text(in), *back = malloc(in.len + 1), cut[8];
    struct buf out = {0};
    grpc_percent_encode(&out, text);
    grpc_percent_decode((const char *)buf_slice(&out).data, buf_len(&out), back, in.len + 1);
    check(strcmp(back, text) == 0);
    grpc_percent_decode(text, in.len, cut, sizeof cut);
    check(memchr(cut, 0, sizeof cut) != NULL);
    buf_free(&out);
    free(back);
    free(text);
}

static void fuzz_base64(struct slice in)
{
    uint8_t *out = malloc(in.len * 3 / 4 + 1), *back = malloc(in.len * 3 / 4 + 8);
    size_t n, m;
    if (grpc_base64_decode((const char *)in.data, in.len, out, &n)) {
        struct buf text = {0};
        check(n <= in.len * 3 / 4);
        grpc_base64_encode(&text, out, n);
        check(grpc_base64_decode((const char *)buf_slice(&text).data, buf_len(&text), back, &m));
        check(n == m && memcmp(out, back, n) == 0);
        buf_free(&text);
    }
    (void)grpc_content_type_ok((const char *)in.data, in.len);
    (void)grpc_key_is_binary((const char *)in.data, in.len);
    free(out);
    free(back);
}

static void fuzz_status(struct slice in)
{
    struct status st, again;
    if (!status_decode(&st, in))
        return;
    struct buf out = {0};
    status_encode(&st, &out);
    if (buf_len(&out)) {
        check(status_decode(&again, buf_slice(&out)));
        check(again.code == st.code && strcmp(again.message, st.message) == 0);
        check(again.violation_count == st.violation_count);
    }
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(struct slice) = {fuzz_deframer, fuzz_timeout, fuzz_percent, fuzz_base64,
                                                    fuzz_status};
    if (size > 0)
        targets[data[0] % (sizeof targets / sizeof *targets)]((struct slice){data + 1, size - 1});
    return 0;
}
