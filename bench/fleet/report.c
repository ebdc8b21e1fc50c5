#include "bench/fleet/report.h"

#include <inttypes.h>

static void key(struct report *r, const char *name)
{
    if (r->json)
        fprintf(r->out, "%s\"%s\":", r->begun ? "," : "", name);
    else
        fprintf(r->out, "%s%s=", r->begun ? " " : "", name);
    r->begun = true;
}

void report_begin(struct report *r, const char *event)
{
    if (r->json)
        fprintf(r->out, "{\"event\":\"%s\"", event);
    else
        fprintf(r->out, "%s", event);
    r->begun = true;
}

void report_count(struct report *r, const char *name, uint64_t value)
{
    key(r, name);
    fprintf(r->out, "%" PRIu64, value);
}

void report_number(struct report *r, const char *name, double value)
{
    key(r, name);
    fprintf(r->out, "%.3f", value);
}

void report_text(struct report *r, const char *name, const char *value)
{
    key(r, name);
    if (!r->json) {
        fputs(value, r->out);
        return;
    }
    fputc('"', r->out);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            fputc('\\', r->out);
        if ((unsigned char)*value < 0x20)
            fprintf(r->out, "\\u%04x", (unsigned)(unsigned char)*value);
        else
            fputc(*value, r->out);
    }
    fputc('"', r->out);
}

void report_stats(struct report *r, const struct stats *s)
{
    for (int i = 0; i < STAT_COUNT; i++)
        report_count(r, stat_name((enum tally)i), s->v[i]);
    report_count(r, "last_acked_us", s->last_acked_us);
}

void report_latency(struct report *r, const struct histogram *h)
{
    report_number(r, "push_puback_p50_ms", (double)histogram_quantile(h, 0.5) / 1e3);
    report_number(r, "push_puback_p99_ms", (double)histogram_quantile(h, 0.99) / 1e3);
    report_number(r, "push_puback_p999_ms", (double)histogram_quantile(h, 0.999) / 1e3);
}

void report_end(struct report *r)
{
    fputs(r->json ? "}\n" : "\n", r->out);
    fflush(r->out);
    r->begun = false;
}
