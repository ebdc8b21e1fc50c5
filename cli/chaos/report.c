#include <inttypes.h>
#include <stdio.h>

#include "cli/chaos/chaos.h"
#include "cli/chaos/memory.h"
#include "lib/base/clock.h"
#include "lib/store/state.h"

#define MIB (1024.0 * 1024)

static unsigned kills(const struct chaos *c)
{
    unsigned n = 0;

    for (int i = 0; i < FAULT_KINDS; i++)
        n += fault_kind_info((enum fault_kind)i)->kill ? c->tally[i].injected : 0;
    return n;
}

static double mean(const struct chaos_tally *t)
{
    return t->injected ? t->recovery_sum_s / t->injected : 0;
}

static void table(const struct chaos *c)
{
    const struct verdict *v = &c->verdict;
    struct memory_peak peaks[MEMORY_KINDS];

    printf("\n%-18s %8s %8s   %s\n", "fault", "injected", "skipped", "seconds to recover: mean, longest");
    for (int i = 0; i < FAULT_KINDS; i++) {
        const struct chaos_tally *t = &c->tally[i];
        if (t->injected || t->skipped)
            printf("%-18s %8u %8u   %6.2f %6.2f\n", fault_kind_info((enum fault_kind)i)->name, t->injected, t->skipped,
                   mean(t), t->recovery_max_s);
    }
    printf("\n%u kills, %" PRIu64 " batches (%" PRIu64 " canceled), %" PRIu64 " commands, %" PRIu64
           " executed, %" PRIu64 " received more than once\n",
           kills(c), v->batches, v->canceled_batches, v->commands, v->executed, v->repeated);
    if (v->forgotten)
        printf("%" PRIu64 " told as unsent were sent in a second that Redis and a worker lost at once\n", v->forgotten);
    for (int s = 1; s < STATE_COUNT; s++)
        if (v->states[s])
            printf("  %-10s %10" PRIu64 "\n", state_name((enum command_state)s), v->states[s]);
    memory_peaks(c->memory, peaks);
    printf("\nMiB of memory at most, and the bound:");
    for (int i = 0; i < MEMORY_KINDS; i++)
        printf("%s %s %.1f of %.0f", i ? "," : "", peaks[i].name, (double)peaks[i].peak / MIB,
               (double)peaks[i].bound / MIB);
    printf("\n\n");
    for (int i = 0; i < BREACHES; i++) {
        const struct complaints *cs = &v->complaints[i];
        if (!cs->count)
            continue;
        printf("BROKEN %s: %" PRIu64 "\n", breach_name((enum breach)i), cs->count);
        for (uint64_t n = 0; n < cs->count && n < COMPLAINTS_MAX; n++)
            printf("  %s\n", cs->text[n]);
    }
}

static void put_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar((unsigned char)*text < 0x20 ? ' ' : *text);
    }
    putchar('"');
}

static void json_faults(const struct chaos *c)
{
    bool more = false;

    printf("\"faults\":{");
    for (int i = 0; i < FAULT_KINDS; i++) {
        const struct chaos_tally *t = &c->tally[i];
        if (!t->injected && !t->skipped)
            continue;
        printf("%s\"%s\":{\"injected\":%u,\"skipped\":%u,\"recovery_mean_s\":%.3f,\"recovery_max_s\":%.3f}",
               more ? "," : "", fault_kind_info((enum fault_kind)i)->name, t->injected, t->skipped, mean(t),
               t->recovery_max_s);
        more = true;
    }
    printf("}");
}

static void json_breaches(const struct verdict *v)
{
    bool more = false;

    printf("\"broken\":{");
    for (int i = 0; i < BREACHES; i++) {
        const struct complaints *cs = &v->complaints[i];
        if (!cs->count)
            continue;
        printf("%s\"%s\":{\"count\":%" PRIu64 ",\"examples\":[", more ? "," : "", breach_name((enum breach)i),
               cs->count);
        for (uint64_t n = 0; n < cs->count && n < COMPLAINTS_MAX; n++) {
            fputs(n ? "," : "", stdout);
            put_text(cs->text[n]);
        }
        printf("]}");
        more = true;
    }
    printf("}");
}

static void json_memory(const struct chaos *c)
{
    struct memory_peak peaks[MEMORY_KINDS];

    memory_peaks(c->memory, peaks);
    printf("\"memory\":{");
    for (int i = 0; i < MEMORY_KINDS; i++)
        printf("%s\"%s\":{\"peak\":%" PRIu64 ",\"bound\":%" PRIu64 "}", i ? "," : "", peaks[i].name, peaks[i].peak,
               peaks[i].bound);
    printf("}");
}

static void json(const struct chaos *c)
{
    const struct verdict *v = &c->verdict;
    bool more = false;

    printf("{\"seed\":%" PRId64 ",\"rounds\":%" PRId64 ",\"seconds\":%.1f,\"kills\":%u,\"batches\":%" PRIu64
           ",\"canceled_batches\":%" PRIu64 ",\"commands\":%" PRIu64 ",\"executed\":%" PRIu64 ",\"repeated\":%" PRIu64
           ",\"forgotten\":%" PRIu64 ",\"states\":{",
           c->options.seed, c->options.rounds, (double)(clock_mono_us() - c->began_us) / 1e6, kills(c), v->batches,
           v->canceled_batches, v->commands, v->executed, v->repeated, v->forgotten);
    for (int s = 1; s < STATE_COUNT; s++)
        if (v->states[s]) {
            printf("%s\"%s\":%" PRIu64, more ? "," : "", state_name((enum command_state)s), v->states[s]);
            more = true;
        }
    printf("},");
    json_faults(c);
    printf(",");
    json_memory(c);
    printf(",");
    json_breaches(v);
    printf(",\"good\":%s}\n", verdict_is_good(v) ? "true" : "false");
}

void chaos_report(const struct chaos *c)
{
    if (c->inv->common.json)
        json(c);
    else
        table(c);
    fflush(stdout);
}
