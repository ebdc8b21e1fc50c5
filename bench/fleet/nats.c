#include "bench/fleet/nats.h"

#include <string.h>

static const struct {
    const char *word;
    enum nats_op op;
} ops[] = {
    {"MSG", NATS_MSG},   {"PING", NATS_PING}, {"PONG", NATS_PONG},
    {"INFO", NATS_INFO}, {"+OK", NATS_OK},    {"-ERR", NATS_ERR},
};

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* Takes the next word, which blanks end; empty at the end of the line. */
static struct slice next_word(struct slice *line)
{
    while (line->len > 0 && is_blank(line->data[0]))
        *line = (struct slice){line->data + 1, line->len - 1};
    struct slice word = {line->data, 0};
    while (word.len < line->len && !is_blank(line->data[word.len]))
        word.len++;
    *line = (struct slice){line->data + word.len, line->len - word.len};
    return word;
}

/* Takes a line without its CR LF. */
static enum nats_result read_line(struct slice *in, struct slice *line)
{
    size_t most = in->len < NATS_LINE_MAX ? in->len : NATS_LINE_MAX;
    const uint8_t *end = most > 0 ? memchr(in->data, '\n', most) : NULL;

    if (!end)
        return in->len < NATS_LINE_MAX ? NATS_MORE : NATS_BAD;
    size_t len = (size_t)(end - in->data);
    if (len == 0 || end[-1] != '\r')
        return NATS_BAD;
    *line = (struct slice){in->data, len - 1};
    *in = (struct slice){end + 1, in->len - len - 1};
    return NATS_DONE;
}

static bool read_op(struct slice word, enum nats_op *op)
{
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (strlen(ops[i].word) == word.len && memcmp(ops[i].word, word.data, word.len) == 0) {
            *op = ops[i].op;
            return true;
        }
    return false;
}

static bool read_size(struct slice word, size_t *size)
{
    *size = 0;
    for (size_t i = 0; i < word.len; i++) {
        if (word.data[i] < '0' || word.data[i] > '9')
            return false;
        *size = *size * 10 + (size_t)(word.data[i] - '0');
        if (*size > NATS_PAYLOAD_MAX)
            return false;
    }
    return word.len > 0;
}

/* MSG <subject> <sid> [reply-to] <#bytes>, and behind the line the payload and CR LF. */
static enum nats_result read_message(struct slice line, struct slice *in, struct nats_message *out)
{
    struct slice words[4], end, size;
    size_t n = 0, len;

    while (n < 4 && (words[n] = next_word(&line)).len > 0)
        n++;
    if (n < 3 || next_word(&line).len > 0)
        return NATS_BAD;
    out->subject = words[0];
    out->reply = n == 4 ? words[2] : (struct slice){0};
    size = words[n - 1];
    if (!read_size(size, &len))
        return NATS_BAD;
    if (!slice_bytes(in, len, &out->payload) || !slice_bytes(in, 2, &end))
        return NATS_MORE;
    return memcmp(end.data, "\r\n", 2) == 0 ? NATS_DONE : NATS_BAD;
}

enum nats_result nats_read(struct slice *in, struct nats_message *out)
{
    struct slice rest = *in, line;
    enum nats_result got = read_line(&rest, &line);

    *out = (struct nats_message){0};
    if (got != NATS_DONE)
        return got;
    if (!read_op(next_word(&line), &out->op))
        return NATS_BAD;
    out->text = line;
    if (out->op == NATS_MSG && (got = read_message(line, &rest, out)) != NATS_DONE)
        return got;
    *in = rest;
    return NATS_DONE;
}

void nats_put_connect(struct buf *out, const char *name)
{
    buf_printf(out,
               "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"%s\",\"name\":\"%s\","
               "\"protocol\":1}\r\n",
               MUSTER_VERSION, name);
}

void nats_put_subscribe(struct buf *out, const char *subject, uint32_t sid)
{
    buf_printf(out, "SUB %s %u\r\n", subject, sid);
}

void nats_put_publish(struct buf *out, struct slice subject, struct slice reply, struct slice payload)
{
    char digits[24];
    size_t at = sizeof digits;

    /* Once a message: without printf. */
    for (size_t n = payload.len; at == sizeof digits || n > 0; n /= 10)
        digits[--at] = (char)('0' + n % 10);
    buf_put(out, "PUB ", 4);
    buf_put(out, subject.data, subject.len);
    buf_put_u8(out, ' ');
    if (reply.len > 0) {
        buf_put(out, reply.data, reply.len);
        buf_put_u8(out, ' ');
    }
    buf_put(out, digits + at, sizeof digits - at);
    buf_put(out, "\r\n", 2);
    buf_put(out, payload.data, payload.len);
    buf_put(out, "\r\n", 2);
}

void nats_put_ping(struct buf *out)
{
    buf_put_str(out, "PING\r\n");
}

void nats_put_pong(struct buf *out)
{
    buf_put_str(out, "PONG\r\n");
}
