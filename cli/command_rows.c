#include "cli/command_rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/show.h"
#include "cli/visible.h"
#include "proto/json.h"

static const char *state(const Muster__V1__CommandStatus *c)
{
    return show_enum(&muster__v1__command_state__descriptor, (int)c->state);
}

static bool has_words(const Muster__V1__CommandStatus *c)
{
    return c->result && (c->result->code || c->result->text[0]);
}

/* --- pieces ------------------------------------------------------------------------------------------------------- */

/* Text, filled up with blanks to `width` bytes. */
static void put_padded(struct buf *out, const char *text, size_t width)
{
    size_t len = strlen(text), all = len < width ? width : len;
    uint8_t *p = buf_reserve(out, all);
    if (!p)
        return;
    memcpy(p, text, len);
    memset(p + len, ' ', all - len);
    buf_commit(out, all);
}

/* "2026-11-25T20:00:00.123Z"; with `always` also the milliseconds .000. */
static void put_time(struct row_writer *w, const Google__Protobuf__Timestamp *at, bool always)
{
    unsigned ms = (unsigned)at->nanos / 1000000 % 1000;
    if (!w->second || at->seconds != w->second) {
        struct tm utc;
        time_t seconds = (time_t)at->seconds;
        w->seconds[0] = '\0';
        if (gmtime_r(&seconds, &utc))
            strftime(w->seconds, sizeof w->seconds, "%Y-%m-%dT%H:%M:%S", &utc);
        w->second = at->seconds;
    }
    buf_put_str(&w->out, w->seconds);
    if (ms || always)
        buf_put(&w->out, (char[]){'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10)}, 4);
    buf_put_u8(&w->out, 'Z');
}

/* A JSON string (RFC 8259, 7). */
static void put_quoted(struct buf *out, const char *text)
{
    buf_put_u8(out, '"');
    for (const char *p = text; *p;) {
        size_t plain = 0;
        while ((unsigned char)p[plain] >= 0x20 && p[plain] != '"' && p[plain] != '\\')
            plain++;
        buf_put(out, p, plain);
        p += plain;
        if (*p)
            buf_printf(out, "\\u%04x", (unsigned)(unsigned char)*p++);
    }
    buf_put_u8(out, '"');
}

/* What spreadsheets take a cell for a formula by, in full width too (OWASP, "CSV Injection"). */
static bool begins_formula(const char *text)
{
    static const char *const signs[] = {"=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (strncmp(text, signs[i], strlen(signs[i])) == 0)
            return true;
    return false;
}

/* A CSV field (RFC 4180, 2). Of `words`, which a device chose, no spreadsheet makes a formula. */
static void put_csv(struct buf *out, const char *text, bool words)
{
    bool quoted = strpbrk(text, ",\"\r\n");
    if (quoted)
        buf_put_u8(out, '"');
    if (words && begins_formula(text))
        buf_put_u8(out, '\'');
    while (*text) {
        size_t n = strcspn(text, "\"");
        buf_put(out, text, n);
        text += n;
        if (*text) {
            buf_put(out, "\"\"", 2);
            text++;
        }
    }
    if (quoted)
        buf_put_u8(out, '"');
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

static void put_table(struct row_writer *w, const Muster__V1__CommandStatus *c)
{
    struct buf *out = &w->out;
    char number[24];
    put_padded(out, c->command_id, 36);
    buf_put(out, number, (size_t)snprintf(number, sizeof number, " %8" PRId64 " ", c->batch_id));
    put_padded(out, c->device_id, 24);
    buf_put_u8(out, ' ');
    put_padded(out, state(c), 10);
    buf_put(out, number, (size_t)snprintf(number, sizeof number, " %8" PRIu32 " ", c->attempts));
    if (c->updated_at) {
        put_time(w, c->updated_at, true);
        buf_put_u8(out, ' '); /* 24 bytes of 25 */
    } else {
        put_padded(out, "-", 25);
    }
    if (has_words(c)) {
        buf_printf(out, " %" PRId32 " ", c->result->code);
        visible_put(out, c->result->text);
    }
    buf_put_u8(out, '\n');
}

static void put_csv_row(struct row_writer *w, const Muster__V1__CommandStatus *c)
{
    struct buf *out = &w->out;
    char numbers[48];
    buf_put_str(out, c->command_id);
    buf_put(out, numbers, (size_t)snprintf(numbers, sizeof numbers, ",%" PRId64 ",", c->batch_id));
    put_csv(out, c->device_id, false); /* [A-Za-z0-9._:@-], exact: others know it by that */
    buf_put_u8(out, ',');
    buf_put_str(out, state(c));
    buf_put(out, numbers, (size_t)snprintf(numbers, sizeof numbers, ",%" PRIu32 ",", c->attempts));
    if (c->updated_at)
        put_time(w, c->updated_at, true);
    if (has_words(c))
        buf_printf(out, ",%" PRId32 ",", c->result->code);
    else
        buf_put_str(out, ",,");
    if (has_words(c))
        put_csv(out, c->result->text, true);
    buf_put_u8(out, '\n');
}

static void put_json_row(struct row_writer *w, const Muster__V1__CommandStatus *c)
{
    struct buf *out = &w->out;
    const ProtobufCEnumValue *state =
        protobuf_c_enum_descriptor_get_value(&muster__v1__command_state__descriptor, (int)c->state);
    char numbers[48];
    buf_put_str(out, "{\"commandId\":");
    put_quoted(out, c->command_id);
    buf_put(out, numbers, (size_t)snprintf(numbers, sizeof numbers, ",\"batchId\":\"%" PRId64 "\"", c->batch_id));
    buf_put_str(out, ",\"deviceId\":");
    put_quoted(out, c->device_id);
    if (state) {
        buf_put_str(out, ",\"state\":\"");
        buf_put_str(out, state->name);
        buf_put_u8(out, '"');
    } else {
        buf_printf(out, ",\"state\":%d", (int)c->state);
    }
    if (c->attempts)
        buf_put(out, numbers, (size_t)snprintf(numbers, sizeof numbers, ",\"attempts\":%" PRIu32, c->attempts));
    if (c->updated_at) {
        buf_put_str(out, ",\"updatedAt\":\"");
        put_time(w, c->updated_at, false);
        buf_put_u8(out, '"');
    }
    if (c->result) {
        char *result = json_from_message(&c->result->base, false);
        if (result) {
            buf_put_str(out, ",\"result\":");
            result[strcspn(result, "\n")] = '\0';
            visible_put(out, result);
        }
        out->failed |= !result;
        free(result);
    }
    buf_put_str(out, "}\n");
}

static const struct {
    const char *name;
    void (*put)(struct row_writer *w, const Muster__V1__CommandStatus *c);
} formats[] = {
    [ROWS_TABLE] = {"table", put_table}, [ROWS_CSV] = {"csv", put_csv_row}, [ROWS_JSON] = {"json", put_json_row}};

bool row_format_read(const char *text, enum row_format *format)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, text) == 0) {
            *format = (enum row_format)i;
            return true;
        }
    }
    return false;
}

void row_writer_begin(struct row_writer *w)
{
    if (w->begun)
        return;
    w->begun = true;
    if (w->format == ROWS_TABLE)
        buf_printf(&w->out, "%-36s %8s %-24s %-10s %8s %-25s %s\n", "COMMAND", "BATCH", "DEVICE", "STATE", "ATTEMPTS",
                   "UPDATED", "RESULT");
    else if (w->format == ROWS_CSV)
        buf_put_str(&w->out, "command_id,batch_id,device_id,state,attempts,updated_at,code,text\n");
}

void row_writer_put(struct row_writer *w, const Muster__V1__CommandStatus *command)
{
    row_writer_begin(w);
    formats[w->format].put(w, command);
}

bool row_writer_flush(struct row_writer *w)
{
    bool ok = !w->out.failed && fwrite(buf_slice(&w->out).data, 1, buf_len(&w->out), stdout) == buf_len(&w->out);
    buf_reset(&w->out);
    return ok;
}

void row_writer_free(struct row_writer *w)
{
    buf_free(&w->out);
}

/* Under its row: what keeps it. */
static void put_pending(struct row_writer *w, const Muster__V1__CommandStatus *c)
{
    for (size_t i = 0; i < c->n_pending; i++)
        buf_printf(&w->out, "    %s\n", c->pending[i]->words);
}

void command_rows(Muster__V1__CommandStatus *const *commands, size_t count, bool heading)
{
    struct row_writer w = {.begun = !heading};

    row_writer_begin(&w);
    for (size_t i = 0; i < count; i++) {
        row_writer_put(&w, commands[i]);
        put_pending(&w, commands[i]);
    }
    if (!row_writer_flush(&w) && !ferror(stdout))
        fprintf(stderr, "muster: out of memory\n");
    row_writer_free(&w);
}

static void information(const Muster__V1__DeviceInformation *d)
{
    printf("  os version   %s\n  model        %s\n  serial       %s\n", d->os_version, d->model, d->serial_number);
    for (size_t i = 0; i < d->n_items; i++)
        printf("  %-12s %s\n", d->items[i]->key, d->items[i]->value);
}

void command_details(const Muster__V1__CommandStatus *c)
{
    char at[SHOW_TIME_BYTES];

    printf("command %s\n  batch        %" PRId64 "\n  device       %s\n  state        %s\n  attempts     %" PRIu32
           "\n  updated      %s\n",
           c->command_id, c->batch_id, c->device_id, state(c), c->attempts, show_time(c->updated_at, at));
    for (size_t i = 0; i < c->n_pending; i++)
        printf("  %-12s %s\n", i ? "" : "waits for", c->pending[i]->words);
    if (c->expires_at)
        printf("  ends by      %s\n", show_time(c->expires_at, at));
    if (!c->result)
        return;
    if (c->result->code || c->result->text[0])
        printf("  code         %" PRId32 "\n  text         %s\n", c->result->code, c->result->text);
    if (c->result->backup_reference[0])
        printf("  backup       %s\n", c->result->backup_reference);
    if (c->result->payload.len)
        printf("  payload      %zu bytes (--json shows them)\n", c->result->payload.len);
    if (c->result->information)
        information(c->result->information);
}
