#include "dispatcher/repair.h"

#include <stdio.h>
#include <string.h>

#include "dispatcher/leader_walk.h"
#include "dispatcher/rebuild.h"
#include "dispatcher/route.h"
#include "lib/base/log.h"
#include "lib/store/live_look.h"

/* Blocks that are complete are not routed again: what is wrong there is thrown away. */
static void looked_at(struct reign *r, struct open_batch *batch)
{
    if (--batch->looking > 0)
        return;
    for (uint32_t i = 0; i < batch->block_count; i++)
        if (batch->redo || !batch->blocks[i].remaining)
            live_close(r->live, block_place(&batch->blocks[i]), NULL, NULL);
    batch->redo = false;
    rebuild_batch(r, batch);
    router_pump(r);
}

static void again(struct reign *r, uint64_t id, bool redo)
{
    static const struct bitmap nobody; /* to whom nothing happens: the walk only looks */
    struct open_batch *batch = open_set_find(&r->set, id);
    if (!batch || batch->stage != OPEN_RUNNING || !batch->touched || batch->rebuild || batch->looking)
        return;
    if (batch->cancel_begun && !batch->canceled)
        return; /* its moves must not be mixed with these: looked at again when it is over */
    log_info("repair", "batch=%llu redo=%s", (unsigned long long)id, redo ? "true" : "false");
    batch->redo = redo;
    batch->looking = batch->block_count;
    for (uint32_t i = 0; i < batch->block_count; i++)
        walk_block(r, &batch->blocks[i], EVENT_RELEASE, &nobody, looked_at);
    walker_pump(r);
}

static void left(struct reign *r, uint64_t id, uint32_t tenant, uint32_t block)
{
    if (open_set_find(&r->set, id))
        return;
    log_info("repair", "left=%llu tenant=%u block=%u", (unsigned long long)id, tenant, block);
    live_close(r->live, (struct live_place){tenant, block, id}, NULL, NULL);
}

static void spec(struct reign *r, uint64_t id)
{
    if (open_set_find(&r->set, id))
        return;
    log_info("repair", "spec=%llu", (unsigned long long)id);
    live_drop_spec(r->live, id, NULL, NULL);
}

void repair_told(struct reign *r, struct slice text)
{
    char words[96];
    unsigned long long id;
    unsigned a, b;
    snprintf(words, sizeof words, "%.*s", (int)(text.len < sizeof words ? text.len : sizeof words - 1),
             (const char *)text.data);
    if (!reign_live(r))
        return;
    if (sscanf(words, "repair batch %llu", &id) == 1)
        again(r, id, false);
    else if (sscanf(words, "repair redo %llu", &id) == 1)
        again(r, id, true);
    else if (sscanf(words, "repair left %llu %u %u", &id, &a, &b) == 3)
        left(r, id, a, b);
    else if (sscanf(words, "repair spec %llu", &id) == 1)
        spec(r, id);
    else if (sscanf(words, "repair worker %u", &a) == 1 && a > 0 && a <= UINT16_MAX)
        live_worker_list(r->live, (uint16_t)a);
    else if (strcmp(words, "repair all") == 0)
        rebuild_begin(r);
}
