#include "cli/chaos/load_batch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/chaos/load.h"
#include "cli/chaos/schedule.h"

/* Of a hundred batches. */
#define SHARE_ALL      6
#define SHARE_PLATFORM 10
#define SHARE_GROUP    16
#define SHARE_SHORT    15 /* expire within seconds */
#define SHARE_CANCELED 12

static unsigned below(uint64_t *random, unsigned n)
{
    return (unsigned)(schedule_random(random) % n);
}

static void draw_ids(struct load_batch *b, const struct load_tenant *t, uint64_t *random)
{
    unsigned count = 1 + below(random, LOAD_IDS_MAX);

    muster__v1__device_ids__init(&b->devices);
    for (unsigned i = 0; i < count; i++) {
        snprintf(b->ids[i], sizeof b->ids[i], "%.12s-%07u", t->prefix, below(random, t->devices));
        b->id_list[i] = b->ids[i];
    }
    b->devices.ids = b->id_list;
    b->devices.n_ids = count;
    b->target.kind_case = MUSTER__V1__TARGET__KIND_DEVICES;
    b->target.devices = &b->devices;
}

static void draw_target(struct load_batch *b, const struct load_tenant *t, uint64_t *random)
{
    /* Of those that `muster dev` gives devices. */
    static const Muster__V1__Platform platforms[] = {
        MUSTER__V1__PLATFORM__PLATFORM_IPADOS, MUSTER__V1__PLATFORM__PLATFORM_MACOS,
        MUSTER__V1__PLATFORM__PLATFORM_WINDOWS, MUSTER__V1__PLATFORM__PLATFORM_TVOS};
    unsigned share = below(random, 100);

    muster__v1__target__init(&b->target);
    if (share < SHARE_ALL) {
        b->target.kind_case = MUSTER__V1__TARGET__KIND_ALL;
        b->target.all = true;
    } else if (share < SHARE_ALL + SHARE_PLATFORM) {
        b->target.kind_case = MUSTER__V1__TARGET__KIND_PLATFORM;
        b->target.platform = platforms[below(random, 4)];
    } else if (share < SHARE_ALL + SHARE_PLATFORM + SHARE_GROUP) {
        muster__v1__group_names__init(&b->groups);
        snprintf(b->group, sizeof b->group, "group-%u", below(random, LOAD_GROUPS));
        b->group_list[0] = b->group;
        b->groups.names = b->group_list;
        b->groups.n_names = 1;
        b->target.kind_case = MUSTER__V1__TARGET__KIND_GROUPS;
        b->target.groups = &b->groups;
    } else {
        draw_ids(b, t, random);
    }
    b->request.target = &b->target;
}

static void draw_command(struct load_batch *b, uint64_t *random)
{
    Muster__V1__Command *c = &b->command;

    muster__v1__command__init(c);
    switch (below(random, 6)) {
    case 0:
        muster__v1__lock_command__init(&b->kind.lock);
        c->kind_case = MUSTER__V1__COMMAND__KIND_LOCK;
        c->lock = &b->kind.lock;
        break;
    case 1:
        muster__v1__configure_command__init(&b->kind.configure);
        b->kind.configure.profile_id = (char *)"chaos";
        c->kind_case = MUSTER__V1__COMMAND__KIND_CONFIGURE;
        c->configure = &b->kind.configure;
        break;
    case 2:
        muster__v1__query_information_command__init(&b->kind.query);
        c->kind_case = MUSTER__V1__COMMAND__KIND_QUERY_INFORMATION;
        c->query_information = &b->kind.query;
        break;
    case 3:
        muster__v1__back_up_command__init(&b->kind.back_up);
        c->kind_case = MUSTER__V1__COMMAND__KIND_BACK_UP;
        c->back_up = &b->kind.back_up;
        break;
    case 4:
        muster__v1__restart_command__init(&b->kind.restart);
        c->kind_case = MUSTER__V1__COMMAND__KIND_RESTART;
        c->restart = &b->kind.restart;
        break;
    default:
        muster__v1__custom_command__init(&b->kind.custom);
        b->kind.custom.type = (char *)"chaos";
        c->kind_case = MUSTER__V1__COMMAND__KIND_CUSTOM;
        c->custom = &b->kind.custom;
        break;
    }
    b->request.command = c;
}

static void draw_end(struct load_batch *b, const struct load_tenant *t, uint64_t *random, int64_t now_ms)
{
    unsigned share = below(random, 100);

    b->expires_ms = now_ms + t->patience_ms;
    if (share < SHARE_SHORT) {
        b->expires_ms = now_ms + 1500 + below(random, 3000);
    } else if (share < SHARE_SHORT + SHARE_CANCELED) {
        /* What was sent before goes on to its own end: which must not be far. */
        b->expires_ms = now_ms + 10000 + below(random, 5000);
        b->to_cancel = true;
        b->cancel_ms = below(random, 800);
    }
    google__protobuf__timestamp__init(&b->expires_at);
    b->expires_at.seconds = b->expires_ms / 1000;
    b->expires_at.nanos = (int32_t)(b->expires_ms % 1000) * 1000000;
    b->request.expires_at = &b->expires_at;
}

void load_batch_draw(struct load_batch *b, const struct load_tenant *t, unsigned round, uint64_t n, uint64_t *random,
                     int64_t now_ms)
{
    unsigned class = below(random, 10);

    memset(b, 0, sizeof *b);
    muster__v1__submit_batch_request__init(&b->request);
    snprintf(b->request_id, sizeof b->request_id, "t%d-r%u-%" PRIu64, t->number, round, n);
    b->request.request_id = b->request_id;
    b->request.priority = class < 2   ? MUSTER__V1__PRIORITY__PRIORITY_URGENT
                          : class < 7 ? MUSTER__V1__PRIORITY__PRIORITY_NORMAL
                                      : MUSTER__V1__PRIORITY__PRIORITY_BULK;
    draw_command(b, random);
    draw_target(b, t, random);
    draw_end(b, t, random, now_ms);
}
