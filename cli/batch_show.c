/* muster batch show: one batch, by platform and wave, and how long its commands took. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/call.h"
#include "cli/commands.h"
#include "cli/show.h"

#define BAR_WIDTH  40
#define TIME_TEXT  24
#define STATE_TEXT 320

/* "12 ms", "1.5 s", "3 min", "2 h", "4 d" */
static const char *duration(uint64_t ms, char out[TIME_TEXT])
{
    static const struct {
        uint64_t ms;
        const char *unit;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "min"}, {1000, "s"}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (ms < units[i].ms)
            continue;
        snprintf(out, TIME_TEXT, ms % units[i].ms ? "%.1f %s" : "%.0f %s", (double)ms / (double)units[i].ms,
                 units[i].unit);
        return out;
    }
    snprintf(out, TIME_TEXT, "%" PRIu64 " ms", ms);
    return out;
}

static void show_platforms(const Muster__V1__Batch *b)
{
    char text[STATE_TEXT];

    for (size_t i = 0; i < b->n_platforms; i++) {
        const Muster__V1__PlatformProgress *p = b->platforms[i];
        show_progress_text(p->progress, text, sizeof text);
        printf("  %-12s %10" PRIu32 "  %s\n", show_enum(&muster__v1__platform__descriptor, (int)p->platform),
               p->devices, text);
    }
}

static void show_waves(const Muster__V1__Batch *b)
{
    char text[STATE_TEXT];

    for (size_t i = 0; i < b->n_waves; i++) {
        const Muster__V1__WaveProgress *w = b->waves[i];
        show_progress_text(w->progress, text, sizeof text);
        printf("  wave %-2" PRIu32 " %-4s %10" PRIu32 "  %s\n", w->wave, w->released ? "out" : "", w->devices, text);
    }
}

static void show_latency(const Muster__V1__Latency *l)
{
    char at[4][TIME_TEXT];
    uint32_t most = 1;

    if (!l)
        return;
    if (!l->commands) {
        printf("  no device has answered yet\n");
        return;
    }
    printf("  from acceptance to outcome, %" PRIu32 " commands: p50 %s, p90 %s, p99 %s, slowest %s\n", l->commands,
           duration(l->p50_ms, at[0]), duration(l->p90_ms, at[1]), duration(l->p99_ms, at[2]),
           duration(l->max_ms, at[3]));
    for (size_t i = 0; i < l->n_buckets; i++)
        if (l->buckets[i]->commands > most)
            most = l->buckets[i]->commands;
    for (size_t i = 0; i < l->n_buckets; i++) {
        const Muster__V1__LatencyBucket *b = l->buckets[i];
        int bar = (int)((uint64_t)b->commands * BAR_WIDTH / most);
        printf("  up to %-8s %10" PRIu32 "  %.*s\n", duration(b->up_to_ms, at[0]), b->commands, bar ? bar : 1,
               "########################################");
    }
}

static void show_got(const ProtobufCMessage *answer)
{
    const Muster__V1__Batch *b = ((const Muster__V1__GetBatchResponse *)answer)->batch;

    show_batch(b);
    show_platforms(b);
    show_waves(b);
    show_latency(b->latency);
}

int batch_show(struct invocation *inv)
{
    struct arg_list by = {0};
    bool latency = false;
    const struct arg_flag flags[] = {
        {"by", ARG_LIST, &by, "platform|wave", "the progress by platform, or by wave; may be repeated", 0, 0},
        {"latency", ARG_BOOL, &latency, "", "how long commands took from acceptance until their outcome", 0, 0},
        {0},
    };
    struct args a = {.positional = "BATCH", .min = 1, .max = 1, .flags = flags};
    Muster__V1__GetBatchRequest request = MUSTER__V1__GET_BATCH_REQUEST__INIT;

    args_parse(inv, &a);
    request.batch_id = args_number(inv, "batch", a.words.items[0]);
    request.latency = latency;
    for (size_t i = 0; i < by.count; i++) {
        if (strcmp(by.items[i], "platform") == 0)
            request.by_platform = true;
        else if (strcmp(by.items[i], "wave") == 0)
            request.by_wave = true;
        else
            args_refuse(inv, "--by %s: is none of platform, wave", by.items[i]);
    }
    return call_once(inv, "CommandService/GetBatch", &request.base, &muster__v1__get_batch_response__descriptor,
                     show_got);
}
