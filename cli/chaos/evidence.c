#include "cli/chaos/evidence.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/state.h"
#include "proto/command_id.h"

/* Room for one more entry of `size` bytes; returns it zeroed. */
static void *add(void **list, size_t *count, size_t *room, size_t size)
{
    if (*count == *room) {
        size_t more = *room ? *room * 2 : 256;
        void *grown = realloc(*list, more * size);
        if (!grown)
            abort();
        *list = grown;
        *room = more;
    }
    return memset((char *)*list + (*count)++ * size, 0, size);
}

#define ADD(e, list, n, room) add((void **)&(e)->list, &(e)->n, &(e)->room, sizeof *(e)->list)

struct request *evidence_request(struct evidence *e)
{
    return ADD(e, requests, request_count, request_room);
}

struct stored_batch *evidence_batch(struct evidence *e)
{
    return ADD(e, batches, batch_count, batch_room);
}

struct told_command *evidence_command(struct evidence *e)
{
    return ADD(e, commands, command_count, command_room);
}

struct witnessed *evidence_witnessed(struct evidence *e)
{
    return ADD(e, witnessed, witnessed_count, witnessed_room);
}

struct known_device *evidence_device(struct evidence *e)
{
    return ADD(e, devices, device_count, device_room);
}

struct slow_time *evidence_slow(struct evidence *e)
{
    return ADD(e, slow, slow_count, slow_room);
}

struct slow_time *evidence_stepped(struct evidence *e)
{
    return ADD(e, stepped, stepped_count, stepped_room);
}

struct slow_time *evidence_blind(struct evidence *e)
{
    return ADD(e, blind, blind_count, blind_room);
}

void evidence_free(struct evidence *e)
{
    free(e->requests);
    free(e->batches);
    free(e->commands);
    free(e->witnessed);
    free(e->devices);
    free(e->slow);
    free(e->stepped);
    free(e->blind);
    *e = (struct evidence){0};
}

/* The journal's own request of that id: the latest ones come first in question. */
static struct request *recent(struct evidence *e, size_t from, const char *id)
{
    for (size_t i = e->request_count; i > from; i--)
        if (strcmp(e->requests[i - 1].id, id) == 0)
            return &e->requests[i - 1];
    return NULL;
}

static bool take_line(struct evidence *e, size_t from, int tenant, const char *line, bool *ended)
{
    char id[REQUEST_ID_BYTES], word[32];
    uint64_t a = 0;
    uint32_t b = 0;

    if (line[0] == 'E') {
        *ended = true;
        return true;
    }
    if (sscanf(line + 1, "%47s", id) != 1)
        return false;
    struct request *r = line[0] == 'S' ? evidence_request(e) : recent(e, from, id);
    if (!r)
        return false;
    switch (line[0]) {
    case 'S':
        snprintf(r->id, sizeof r->id, "%s", id);
        r->tenant = tenant;
        return sscanf(line + 1, "%*s %" SCNd64, &r->expires_ms) == 1;
    case 'A':
        if (sscanf(line + 1, "%*s %" SCNu64 " %" SCNu32, &a, &b) != 2)
            return false;
        r->twice = r->twice || (r->batch && r->batch != a);
        r->batch = a;
        r->devices = b;
        return true;
    case 'R':
        if (sscanf(line + 1, "%*s %31s", word) != 1)
            return false;
        memcpy(r->refused, word, sizeof r->refused);
        return true;
    case 'C':
        r->asked_for_cancel = true;
        return true;
    case 'F':
        return sscanf(line + 1, "%*s %" SCNu64, &r->foreign) == 1;
    case 'K':
        return sscanf(line + 1, "%*s %" SCNd64, &r->canceled_ms) == 1;
    default:
        return false;
    }
}

bool evidence_read_journal(struct evidence *e, const char *path, int tenant)
{
    FILE *in = fopen(path, "re");
    size_t from = e->request_count;
    bool good = in != NULL, ended = false;
    char line[256];

    while (good && fgets(line, sizeof line, in))
        good = take_line(e, from, tenant, line, &ended);
    if (in)
        fclose(in);
    if (good && ended)
        return true;
    fprintf(stderr, "muster chaos: %s: %s\n", path, good ? "its caller did not end in order" : "is no whole journal");
    return false;
}

static int by_device(const void *a, const void *b)
{
    return strcmp(((const struct known_device *)a)->id, ((const struct known_device *)b)->id);
}

static uint8_t outcome_of(const char *name)
{
    static const struct {
        const char *name;
        enum command_state state;
    } outcomes[] = {{"SUCCEEDED", STATE_SUCCEEDED},
                    {"FAILED", STATE_FAILED},
                    {"REJECTED", STATE_REJECTED},
                    {"NOT_NOW", STATE_QUEUED}};

    for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++)
        if (strcmp(name, outcomes[i].name) == 0)
            return (uint8_t)outcomes[i].state;
    return STATE_NONE;
}

static bool take_record_line(struct evidence *e, const char *line)
{
    struct known_device who = {0};
    char command[48], outcome[16];
    unsigned received, executed, acked;
    struct command_id id;
    struct witnessed w = {0};

    if (sscanf(line, "%23s %47s %u %u %15s %u %" SCNd64 " %" SCNd64 " %" SCNd64, who.id, command, &received, &executed,
               outcome, &acked, &w.received_ms, &w.executed_ms, &w.acked_ms) != 9)
        return false;
    if (!command_id_read(&id, command, strlen(command)))
        return false;
    const struct known_device *known =
        e->device_count ? bsearch(&who, e->devices, e->device_count, sizeof who, by_device) : NULL;
    w.batch = id.batch;
    w.tenant = id.tenant;
    w.seq = id.seq;
    w.by_tenant = known ? known->tenant : 0;
    w.by_seq = known ? known->seq : 0;
    w.received = (uint16_t)received;
    w.executed = (uint16_t)executed;
    w.outcome = outcome_of(outcome);
    w.acked = acked != 0;
    *evidence_witnessed(e) = w;
    return true;
}

bool evidence_read_record(struct evidence *e, const char *path)
{
    FILE *in = fopen(path, "re");
    bool good = in != NULL;
    char line[512];

    if (e->device_count)
        qsort(e->devices, e->device_count, sizeof *e->devices, by_device);
    while (good && fgets(line, sizeof line, in))
        good = take_record_line(e, line);
    if (in)
        fclose(in);
    if (!good)
        fprintf(stderr, "muster chaos: %s: is no record of a fleet\n", path);
    return good;
}

static int by_request(const void *a, const void *b)
{
    return strcmp(((const struct request *)a)->id, ((const struct request *)b)->id);
}

static int by_batch(const void *a, const void *b)
{
    uint64_t x = ((const struct stored_batch *)a)->id, y = ((const struct stored_batch *)b)->id;

    return (x > y) - (x < y);
}

static int by_command(const void *a, const void *b)
{
    const struct told_command *x = a, *y = b;

    if (x->batch != y->batch)
        return x->batch > y->batch ? 1 : -1;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

static int by_witnessed(const void *a, const void *b)
{
    const struct witnessed *x = a, *y = b;

    if (x->batch != y->batch)
        return x->batch > y->batch ? 1 : -1;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

#define SORT(list, count, compare)                                                                                     \
    do {                                                                                                               \
        if (count)                                                                                                     \
            qsort(list, count, sizeof *(list), compare);                                                               \
    } while (0)

void evidence_sort(struct evidence *e)
{
    SORT(e->requests, e->request_count, by_request);
    SORT(e->batches, e->batch_count, by_batch);
    SORT(e->commands, e->command_count, by_command);
    SORT(e->witnessed, e->witnessed_count, by_witnessed);
}

const struct request *evidence_find_request(const struct evidence *e, const char *id)
{
    struct request key = {0};

    snprintf(key.id, sizeof key.id, "%s", id);
    return e->request_count ? bsearch(&key, e->requests, e->request_count, sizeof key, by_request) : NULL;
}

const struct stored_batch *evidence_find_batch(const struct evidence *e, uint64_t id)
{
    const struct stored_batch key = {.id = id};

    return e->batch_count ? bsearch(&key, e->batches, e->batch_count, sizeof key, by_batch) : NULL;
}
