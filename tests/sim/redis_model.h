/* What Redis does with the commands and scripts that lib/store/live sends: a model on plain memory.
 * Owns: struct redis_model, keys and values, one function per file of schema/redis. May call: lib/base,
 * lib/store/state, block. Loop rule: none, pure. test_redis_model.c checks replies and keys of random moves against a
 * real Redis. */
#ifndef MUSTER_TESTS_SIM_REDIS_MODEL_H
#define MUSTER_TESTS_SIM_REDIS_MODEL_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"

enum value_type { VALUE_STRING, VALUE_LIST, VALUE_SET, VALUE_SORTED, VALUE_HASH };

/* A member of a list, set (in order of its number), sorted set (by score, then bytes), or hash: then `score` is the
 * field's value, a number. */
struct member {
    uint64_t score;
    uint8_t *data;
    size_t len;
};
struct value {
    struct value *next; /* in its bucket */
    enum value_type type;
    int64_t expires_ms; /* 0: never */
    uint8_t *text;      /* VALUE_STRING */
    size_t len;
    struct member *members;
    size_t count, room;
    size_t key_len;
    char key[];
};

/* Wrong on purpose, to see that the simulation notices: see tests/sim/mutation.h. */
struct redis_model {
    struct value *buckets[256];
    int64_t now_ms;
    char run_id[41];
    unsigned mutation;
    /* A state string changes: for the oracle. `before` is empty when there was none, `after` when it goes. */
    void (*on_state)(void *arg, struct slice key, struct slice before, struct slice after);
    void *arg;
};

struct redis_model *redis_model_new(const char *run_id);
void redis_model_free(struct redis_model **m);
void redis_model_flush(struct redis_model *m);
/* Returns owned: the same keys. */
struct redis_model *redis_model_copy(const struct redis_model *m);

/* Both return owned, freed by reply_free. Commands: those that lib/store/live uses; BLMPOP does not wait: nil when
 * there is nothing. PUBLISH does nothing. Anything else aborts. */
redisReply *redis_model_command(struct redis_model *m, int argc, const struct slice *argv);
redisReply *redis_model_script(struct redis_model *m, const char *script, int keys, int argc, const struct slice *argv);
void reply_free(redisReply *reply);

/* --- for the scripts ------------------------------------------------------------------------------------------------
 */
typedef redisReply *model_fn(struct redis_model *m, const struct slice *keys, const struct slice *args, int arg_count);
struct model_script {
    const char *name;
    model_fn *fn;
};
extern const struct model_script model_scripts[]; /* made by tables.py from schema/redis; ends with a NULL name */

struct value *model_find(struct redis_model *m, struct slice key); /* NULL: none, or expired */
struct value *model_make(struct redis_model *m, struct slice key, enum value_type type);
void model_delete(struct redis_model *m, struct slice key);
void model_set(struct redis_model *m, struct slice key, struct slice text);
static inline struct slice model_text(const struct value *v)
{
    return v ? (struct slice){v->text, v->len} : (struct slice){(const uint8_t *)"", 0};
}
void member_remove(struct value *v, size_t at);
void sorted_add(struct value *v, uint64_t score, struct slice data);
void model_drop_empty(struct redis_model *m, struct slice key);
redisReply *reply_number(int64_t v);
redisReply *reply_text(struct slice text);
redisReply *reply_nil(void);
/* With `n` places to fill. */
redisReply *reply_array(size_t n);
uint64_t slice_number(struct slice s);

#endif
