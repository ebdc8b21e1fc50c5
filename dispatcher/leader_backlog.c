#include "dispatcher/leader_backlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void backlog_tick(struct reign *r)
{
    struct queue_heavy heavy[LEADER_HEAVY_MAX];
    char text[16 + LEADER_HEAVY_MAX * 16] = "backlog";
    if (r->queue.batches < LEADER_BACKLOG_MAX || !reign_live(r))
        return;
    size_t n = queue_heaviest(&r->queue, heavy, LEADER_HEAVY_MAX), at = strlen(text);
    if (r->on_behind) /* without the way through Redis, which may be what is slow */
        r->on_behind(r->arg, heavy, n);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, " %" PRIu32 ":%u", heavy[i].tenant, heavy[i].class);
    live_publish(r->live, text);
}

size_t backlog_read(struct slice text, struct queue_heavy *out)
{
    char copy[16 + LEADER_HEAVY_MAX * 16], *rest = copy;
    size_t n = 0;
    snprintf(copy, sizeof copy, "%.*s", (int)text.len, (const char *)text.data);
    for (char *word; n < LEADER_HEAVY_MAX && (word = strsep(&rest, " ")) != NULL;) {
        uint32_t tenant;
        unsigned class;
        if (sscanf(word, "%" SCNu32 ":%u", &tenant, &class) == 2 && class < QUEUE_CLASSES)
            out[n++] = (struct queue_heavy){tenant, (uint8_t) class};
    }
    return n;
}
