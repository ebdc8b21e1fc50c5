/* A walk over the keys of batches. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/store/live.h"
#include "lib/store/live_internal.h"

/* Keys looked at in one step: a fraction of a millisecond of Redis' time. */
#define STEP "1000"

/* Reads a key's name; false when it is of no batch, or goes with the others (`open` goes with the state strings). */
static bool read_key(struct live_kept *kept, struct slice key)
{
    char text[96];

    if (key.len >= sizeof text)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)key.len, (const char *)key.data);
    *kept = (struct live_kept){.in_block = true};
    if (sscanf(text, "{t%" SCNu32 ".b%" SCNu32 "}:state:%" SCNu64, &kept->place.tenant, &kept->place.block,
               &kept->place.batch) == 3)
        return true;
    if (sscanf(text, "{t%" SCNu32 ".b%" SCNu32 "}:values:%" SCNu64, &kept->place.tenant, &kept->place.block,
               &kept->place.batch) == 3)
        return true;
    kept->in_block = false;
    return sscanf(text, "batch:%" SCNu64, &kept->place.batch) == 1 ||
           sscanf(text, "cancel:%" SCNu64, &kept->place.batch) == 1;
}

static void reply_scan(void *arg, enum err err, const redisReply *reply)
{
    struct request *r = arg;
    struct live_kept *kept = NULL;
    size_t n = 0;
    uint64_t next = 0;

    if (!err && (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2))
        err = ERR_PROTOCOL;
    if (!err) {
        const redisReply *keys = reply->element[1];
        struct slice cursor = reply_slice(reply->element[0]);
        next = cursor.len ? strtoull((const char *)cursor.data, NULL, 10) : 0;
        kept = calloc(keys->elements ? keys->elements : 1, sizeof *kept);
        for (size_t i = 0; kept && i < keys->elements; i++)
            n += read_key(&kept[n], reply_slice(keys->element[i]));
        err = kept ? ERR_OK : ERR_NOMEM;
    }
    r->fn.scan(r->arg, err, kept, n, next);
    free(kept);
    free(r);
}

void live_scan(struct live *live, uint64_t cursor, live_scan_fn *done, void *arg)
{
    struct args a = {0};
    struct request *r = request_new(live, arg, 0);

    r->fn.scan = done;
    args_raw(&a, "SCAN", 4);
    args_printf(&a, "%" PRIu64, cursor);
    args_raw(&a, "COUNT", 5);
    args_raw(&a, STEP, sizeof STEP - 1);
    live_send(live, &a, reply_scan, r);
}
