#include "lib/store/redis_internal.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/schema_files.h"
#include "lib/store/state.h"

#define PRELUDE       "prelude.lua"       /* in front of every script */
#define PRELUDE_BLOCK "prelude_block.lua" /* and of those that say so */
#define NEEDS_BLOCK   "-- Needs prelude_block."

/* The table of transitions as a Lua string: EVENT_COUNT bytes a state, each the next state or 0. */
static void put_transitions(struct buf *out)
{
    buf_put_str(out, "local NEXT = \"");
    for (int state = 0; state < STATE_COUNT; state++)
        for (int event = 0; event < EVENT_COUNT; event++)
            buf_printf(out, "\\%03d", state_next((enum command_state)state, (enum command_event)event));
    buf_put_str(out, "\"\n");
}

/* False without memory, of which OpenSSL needs some. */
static bool hash_text(char out[SCRIPT_HASH + 1], const struct buf *text)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t sum[SHA_DIGEST_LENGTH];
    if (!SHA1(buf_slice(text).data, buf_len(text), sum))
        return false;
    for (int i = 0; i < SHA_DIGEST_LENGTH; i++) {
        out[2 * i] = hex[sum[i] >> 4];
        out[2 * i + 1] = hex[sum[i] & 15];
    }
    out[SCRIPT_HASH] = 0;
    return true;
}

static void put_file(struct buf *out, const char *name)
{
    for (const struct schema_file *f = schema_scripts; f->name; f++)
        if (strcmp(f->name, name) == 0)
            buf_put(out, f->text, f->len);
}

bool redis_scripts_make(struct redis_scripts *s)
{
    int n = 0;
    while (schema_scripts[n].name)
        n++;
    *s = (struct redis_scripts){calloc((size_t)n + 1, sizeof *s->v), 0};
    if (!s->v)
        return false;
    for (const struct schema_file *f = schema_scripts; f->name; f++) {
        if (strcmp(f->name, PRELUDE) == 0 || strcmp(f->name, PRELUDE_BLOCK) == 0)
            continue;
        struct redis_script *script = &s->v[s->count++];
        script->name = f->name;
        script->name_len = strcspn(f->name, ".");
        put_transitions(&script->text);
        put_file(&script->text, PRELUDE);
        if (strstr(f->text, NEEDS_BLOCK))
            put_file(&script->text, PRELUDE_BLOCK);
        buf_put(&script->text, f->text, f->len);
        if (script->text.failed || !hash_text(script->hash, &script->text))
            return false;
    }
    return true;
}

void redis_scripts_free(struct redis_scripts *s)
{
    for (int i = 0; i < s->count; i++)
        buf_free(&s->v[i].text);
    free(s->v);
    *s = (struct redis_scripts){0};
}

struct redis_script *redis_scripts_find(const struct redis_scripts *s, const char *name)
{
    size_t len = strlen(name);
    for (int i = 0; i < s->count; i++)
        if (s->v[i].name_len == len && memcmp(s->v[i].name, name, len) == 0)
            return &s->v[i];
    return NULL;
}
