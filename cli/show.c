#include "cli/show.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/retry.h"
#include "cli/steering.h"
#include "cli/visible.h"
#include "proto/json.h"

void show_json(const ProtobufCMessage *message)
{
    char *text = json_from_message(message, false);

    if (!text) {
        fprintf(stderr, "muster: the answer cannot be written as JSON\n");
        return;
    }
    text[strcspn(text, "\n")] = '\0';
    visible_print(stdout, text);
    fputc('\n', stdout);
    free(text);
}

/* How many bytes the names of an enum have in common: the length of "ROLE_". */
static size_t prefix_of(const ProtobufCEnumDescriptor *d)
{
    const ProtobufCEnumValue *zero = protobuf_c_enum_descriptor_get_value(d, 0);
    const char *end = zero ? strstr(zero->name, "UNSPECIFIED") : NULL;

    return end ? (size_t)(end - zero->name) : 0;
}

const char *show_enum(const ProtobufCEnumDescriptor *d, int value)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);

    return v ? v->name + prefix_of(d) : "?";
}

bool show_read_enum(const ProtobufCEnumDescriptor *d, const char *text, int *value)
{
    char upper[64];
    size_t n = 0;

    for (; n < sizeof upper - 1 && text[n]; n++)
        upper[n] = text[n] == '-' ? '_' : (char)toupper((unsigned char)text[n]);
    upper[n] = '\0';
    for (unsigned i = 0; i < d->n_values && !text[n]; i++) {
        const ProtobufCEnumValue *v = &d->values[i];
        if (v->value && (strcmp(v->name, upper) == 0 || strcmp(v->name + prefix_of(d), upper) == 0)) {
            *value = v->value;
            return true;
        }
    }
    return false;
}

const char *show_enum_choices(const ProtobufCEnumDescriptor *d)
{
    static char out[512];
    size_t n = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < d->n_values; i++) {
        const char *name = d->values[i].name + prefix_of(d);
        if (d->values[i].value == 0 || n + strlen(name) + 3 > sizeof out)
            continue;
        if (n)
            n += (size_t)snprintf(out + n, sizeof out - n, ", ");
        for (; *name; name++)
            out[n++] = *name == '_' ? '-' : (char)tolower((unsigned char)*name);
        out[n] = '\0';
    }
    return out;
}

int64_t show_time_ms(const Google__Protobuf__Timestamp *at)
{
    return at ? at->seconds * 1000 + at->nanos / 1000000 : 0;
}

const char *show_time(const Google__Protobuf__Timestamp *at, char out[SHOW_TIME_BYTES])
{
    struct tm utc;
    time_t seconds = at ? (time_t)at->seconds : 0;

    if (!at || !gmtime_r(&seconds, &utc)) {
        strcpy(out, "-");
        return out;
    }
    size_t n = strftime(out, SHOW_TIME_BYTES - 6, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + n, SHOW_TIME_BYTES - n, ".%03dZ", (int)(at->nanos / 1000000 % 1000));
    return out;
}

const char *show_command(const Muster__V1__Command *c)
{
    static char out[192];
    const ProtobufCFieldDescriptor *f =
        c && c->kind_case ? protobuf_c_message_descriptor_get_field(&muster__v1__command__descriptor, c->kind_case)
                          : NULL;

    if (!f)
        return "none";
    if (c->kind_case == MUSTER__V1__COMMAND__KIND_CUSTOM)
        snprintf(out, sizeof out, "custom %s", c->custom->type);
    else
        snprintf(out, sizeof out, "%s", f->name);
    for (char *p = out; *p && *p != ' '; p++)
        *p = *p == '_' ? '-' : *p;
    return out;
}

void show_counts(const Muster__V1__Progress *p, uint32_t counts[SHOW_STATES])
{
    memset(counts, 0, SHOW_STATES * sizeof *counts);
    if (!p)
        return;
    const uint32_t all[SHOW_STATES] = {0,         p->held,     p->queued,    p->routed,  p->sent,     p->succeeded,
                                       p->failed, p->rejected, p->timed_out, p->expired, p->canceled, p->superseded};
    memcpy(counts, all, sizeof all);
}

void show_progress_text(const Muster__V1__Progress *p, char *out, size_t size)
{
    uint32_t counts[SHOW_STATES];
    size_t n = 0;

    /* Terminal states first: they are what one wants to know. */
    static const int order[] = {5, 6, 7, 8, 9, 10, 11, 4, 3, 2, 1};
    show_counts(p, counts);
    *out = '\0';
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (!counts[order[i]] || n + 32 > size)
            continue;
        n += (size_t)snprintf(out + n, size - n, "%s%" PRIu32 " %s", n ? ", " : "", counts[order[i]],
                              show_enum(&muster__v1__command_state__descriptor, order[i]));
    }
}

static void show_approval(const Muster__V1__BatchApproval *a)
{
    char at[SHOW_TIME_BYTES];

    printf("  approval     %s\n", show_enum(&muster__v1__approval_state__descriptor, (int)a->state));
    if (a->needed)
        printf("    awaited    until %s, by another key than %" PRId64 "\n    digest     %s\n    command    %s\n",
               show_time(a->expires_at, at), a->requested_by, a->target_digest, a->command_hash);
    if (a->decided_by)
        printf("    decided    %s, by key %" PRId64 "%s%s\n", show_time(a->decided_at, at), a->decided_by,
               a->reason[0] ? ": " : "", a->reason);
    if (a->release_at)
        printf("    released   %s\n", show_time(a->release_at, at));
}

void show_batch(const Muster__V1__Batch *b)
{
    char at[SHOW_TIME_BYTES], text[320];

    printf("batch %" PRId64 ": %s, %" PRIu32 " devices, %s, %s\n", b->id, show_command(b->command), b->device_count,
           show_enum(&muster__v1__priority__descriptor, (int)b->priority),
           show_enum(&muster__v1__batch_state__descriptor, (int)b->state));
    if (b->description[0])
        printf("  description  %s\n", b->description);
    printf("  request id   %s\n", b->request_id);
    if (b->created_at)
        printf("  accepted     %s\n", show_time(b->created_at, at));
    if (b->expires_at)
        printf("  expires      %s\n", show_time(b->expires_at, at));
    if (b->cancel_requested_at)
        printf("  cancel asked %s\n", show_time(b->cancel_requested_at, at));
    if (b->canceled_at)
        printf("  canceled     %s\n", show_time(b->canceled_at, at));
    if (b->closed_at)
        printf("  closed       %s\n", show_time(b->closed_at, at));
    if (b->steering)
        steering_show(b->steering);
    if (b->retry)
        retry_show(b->retry);
    if (b->supersede_key[0])
        printf("  supersedes   older commands with the key %s\n", b->supersede_key);
    if (b->control) {
        printf("  control      %s", show_enum(&muster__v1__control_state__descriptor, (int)b->control->state));
        printf("%s%s%s%s\n", b->control->since ? " since " : "",
               b->control->since ? show_time(b->control->since, at) : "", b->control->reason[0] ? ": " : "",
               b->control->reason);
        if (b->control->waves_released)
            printf("  released     wave %" PRIu32 "\n", b->control->waves_released);
        if (b->dynamic)
            printf("  dynamic      %" PRIu32 " joined%s\n", b->control->joined, b->control->sealed ? ", sealed" : "");
        if (b->control->rate)
            printf("  rate now     %" PRIu32 "\n", b->control->rate);
        for (size_t i = 0; i < b->control->n_stopped_platforms; i++)
            printf("  stopped      %s\n",
                   show_enum(&muster__v1__platform__descriptor, (int)b->control->stopped_platforms[i]));
        for (size_t i = 0; i < b->control->n_canceled_platforms; i++)
            printf("  canceled for %s\n",
                   show_enum(&muster__v1__platform__descriptor, (int)b->control->canceled_platforms[i]));
    }
    if (b->values) {
        printf("  values       of %" PRIu32 " devices:", b->values->device_count);
        for (size_t i = 0; i < b->values->n_names; i++)
            printf(" %s", b->values->names[i]);
        printf("%s\n", b->values->others_get_defaults ? "; defaults for the others" : "");
    }
    if (b->approval)
        show_approval(b->approval);
    if (b->progress) {
        show_progress_text(b->progress, text, sizeof text);
        printf("  progress     %s\n", text);
    }
}
