#include "dispatcher/leader_spec.h"

#include <stdlib.h>

#include "dispatcher/usual.h"
#include "lib/store/db_open.h"
#include "muster/internal/v1/batch.pb-c.h"
#include "muster/v1/command_service.pb-c.h"

struct spec_job {
    struct reign *reign;
    spec_sent_fn *sent;
    spec_written_fn *written;
    size_t count;
    struct open_batch *batches[];
};

struct spec_write {
    struct reign *reign;
    spec_written_fn *written;
    struct open_batch *batch;
};

/* Of an encoded muster.v1.Command: all there is in it is one field, whose number stands in the first byte. */
static Muster__V1__Command__KindCase kind_of(struct slice command)
{
    return (Muster__V1__Command__KindCase)(command.len ? command.data[0] >> 3 : 0);
}

static void spec_done(void *arg, enum err err)
{
    struct spec_write w = *(struct spec_write *)arg;
    free(arg);
    if (!reign_back(w.reign))
        return;
    if (w.written)
        w.written(w.reign, w.batch, err);
    reign_idle(w.reign, w.batch);
}

/* What PostgreSQL knows of a batch's content; empty where it has no values. */
struct content {
    struct slice command, described, defaults;
};

void spec_untell(struct open_batch *batch)
{
    free(batch->told);
    batch->told = NULL;
}

/* Takes `bytes`. */
static void tell(struct open_batch *batch, uint8_t *bytes, size_t len)
{
    bool plain = !batch->canceling && !batch->hold && !batch->held && !batch->control && !batch->valued &&
                 !batch->keyed && !batch->growing && !batch->retry_after;
    if (!plain || batch->block_count > SPEC_TOLD_BLOCKS || len > SPEC_TOLD_BYTES) {
        free(bytes);
        return;
    }
    batch->told = bytes;
    batch->told_bytes = (uint32_t)len;
}

static void put_spec(struct reign *r, struct open_batch *batch, const struct content *content, bool first,
                     spec_written_fn *written)
{
    Muster__Internal__V1__BatchSpec spec = MUSTER__INTERNAL__V1__BATCH_SPEC__INIT;
    struct slice command = content->command;
    Muster__V1__BatchValues *told =
        content->described.len ? muster__v1__batch_values__unpack(NULL, content->described.len, content->described.data)
                               : NULL;
    spec.batch_id = (int64_t)batch->id;
    spec.tenant = batch->tenant;
    spec.priority = batch->priority;
    spec.command = (ProtobufCBinaryData){command.len, (uint8_t *)(uintptr_t)command.data};
    spec.created_ms = batch->created_ms;
    spec.expires_ms = batch->expires_ms;
    spec.canceled = batch->canceling;
    spec.hold = batch->hold;
    spec.deliver_by_ms = batch->deliver_by_ms;
    spec.execution_ms = batch->execution_ms;
    spec.head_of_line_ms = usual_ms(kind_of(command));
    if (told) {
        spec.variables = told->names;
        spec.n_variables = told->n_names;
        spec.default_values =
            (ProtobufCBinaryData){content->defaults.len, (uint8_t *)(uintptr_t)content->defaults.data};
    }
    spec.retry_after = batch->retry_after;
    spec.retry_attempts = batch->retry_attempts;
    spec.keyed = batch->keyed;
    size_t len = muster__internal__v1__batch_spec__get_packed_size(&spec);
    uint8_t *bytes = malloc(len);
    struct spec_write *w = malloc(sizeof *w);
    if (!bytes || !w || (content->described.len && !told))
        abort(); /* a fresh process does better than one that has lost a reply */
    muster__internal__v1__batch_spec__pack(&spec, bytes);
    *w = (struct spec_write){reign_hold(r), written, batch};
    batch->touched = true;
    reign_busy(batch);
    live_put_spec(r->live, batch->id, (struct slice){bytes, len}, spec_done, w);
    spec_untell(batch);
    if (first)
        tell(batch, bytes, len);
    else {
        explicit_bzero(bytes, len); /* defaults are in it */
        free(bytes);
    }
    if (told)
        muster__v1__batch_values__free_unpacked(told, NULL);
}

void spec_write(struct reign *r, struct open_batch *batch, struct slice command, spec_written_fn *written)
{
    put_spec(r, batch, &(struct content){.command = command}, true, written);
}

static void got_commands(void *arg, enum err err, const struct pg_error *error, const struct pg_result *const *results,
                         size_t count)
{
    struct spec_job *job = arg;
    struct reign *r = job->reign;
    (void)error, (void)count;
    if (!reign_back(r)) {
        free(job);
        return;
    }
    for (int i = 0; !err && i < pg_rows(results[0]); i++) {
        struct open_batch *batch = open_set_find(&r->set, (uint64_t)pg_int(results[0], i, 0));
        const struct content content = {pg_bytes(results[0], i, 1), pg_bytes(results[0], i, 2),
                                        pg_bytes(results[0], i, 3)};
        if (batch)
            put_spec(r, batch, &content, false, job->written);
    }
    job->sent(r, job->batches, job->count, err);
    for (size_t i = 0; i < job->count; i++)
        reign_idle(r, job->batches[i]);
    free(job);
}

void spec_put(struct reign *r, struct open_batch *const *batches, size_t n, spec_sent_fn *sent,
              spec_written_fn *written)
{
    struct spec_job *job = malloc(sizeof *job + n * sizeof *batches);
    int64_t *ids = malloc((n + 1) * sizeof *ids);
    if (!job || !ids)
        abort();
    *job = (struct spec_job){reign_hold(r), sent, written, n};
    for (size_t i = 0; i < n; i++) {
        job->batches[i] = batches[i];
        ids[i] = (int64_t)batches[i]->id;
        reign_busy(batches[i]);
    }
    struct pg_txn *txn = pg_txn_new(r->pg, r->lane);
    if (txn)
        db_open_commands(txn, ids, n);
    pg_txn_submit(txn, got_commands, job);
    free(ids);
}
