/* What Redis and PostgreSQL hand back, and what devices and callers show: inbox entries, log entries, state strings,
 * bitmaps, values of blocks, tokens, keys, ids; and the commands of callers that have places for values. The first byte
 * chooses the decoder. Whatever is accepted must survive being written again. */
#include <strings.h>

#include "dispatcher/page_token.h"
#include "lib/store/api_key.h"
#include "lib/store/block.h"
#include "lib/store/value_block.h"
#include "muster/v1/command_service.pb-c.h"
#include "proto/ack_log.h"
#include "proto/command_id.h"
#include "proto/credential.h"
#include "proto/fill.h"
#include "proto/inbox.h"
#include "proto/zero_text.h"
#include "tests/fuzz/input.h"

static void fuzz_inbox(struct slice s)
{
    struct inbox_item item, again;
    while (inbox_next(&s, &item) == 1) {
        struct buf out = {0};
        inbox_put(&out, &item);
        struct slice back = buf_slice(&out);
        check(inbox_next(&back, &again) == 1 && back.len == 0);
        check(again.kind == item.kind && memcmp(again.slots, item.slots, sizeof item.slots) == 0);
        check(again.spec.len == item.spec.len &&
              (!item.spec.len || memcmp(again.spec.data, item.spec.data, item.spec.len) == 0));
        buf_free(&out);
    }
}

static void fuzz_ack_log(struct slice s)
{
    struct ack_log_group g;
    while (ack_log_next(&s, &g) == 1) {
        struct buf out = {0};
        ack_log_put_group(&out, g.batch, g.tenant, g.count);
        for (uint32_t i = 0; i < g.count; i++)
            ack_log_put_entry(&out, ack_log_seq(&g, i), ack_log_state(&g, i));
        check(buf_len(&out) == ACK_LOG_GROUP + (size_t)g.count * ACK_LOG_ENTRY);
        check(memcmp(buf_head(&out) + ACK_LOG_GROUP, g.entries, (size_t)g.count * ACK_LOG_ENTRY) == 0);
        buf_free(&out);
    }
}

static void fuzz_states(struct slice s)
{
    struct state_string states;
    if (!state_string_parse(&states, s))
        return;
    uint32_t counts[STATE_COUNT] = {0}, all = 0;
    state_count(counts, states.states, states.count);
    for (unsigned i = 0; i < STATE_COUNT; i++)
        all += counts[i];
    check(all <= states.count);
    for (unsigned slot = 0; slot < BLOCK_SLOTS; slot++)
        check(state_string_get(&states, slot) == 0 || slot >= states.first);
}

static void fuzz_bitmap(struct slice s)
{
    struct bitmap m, back;
    uint16_t first;
    if (s.len < 2 || !bitmap_untrim(&m, load_u16le(s.data), (struct slice){s.data + 2, s.len - 2}))
        return;
    struct slice kept = bitmap_trim(&m, &first);
    check(bitmap_untrim(&back, first, kept) && memcmp(&m, &back, sizeof m) == 0);
}

static void fuzz_token(struct slice s)
{
    static const uint8_t secret[CREDENTIAL_SECRET_BYTES];
    struct credential c;
    if (credential_parse(&c, s))
        (void)!credential_verify(s, (struct slice){(const uint8_t *)"d", 1}, secret);
}

static void fuzz_command_id(struct slice s)
{
    struct command_id id, back;
    char text[COMMAND_ID_TEXT];
    if (!command_id_read(&id, s.data, s.len))
        return;
    command_id_write(text, &id);
    check(command_id_read(&back, text, sizeof text) && back.batch == id.batch && back.seq == id.seq);
}

static void fuzz_api_key(struct slice s)
{
    uint8_t secret[API_KEY_SECRET_BYTES];
    char *text = copy_text(s), again[API_KEY_TEXT_MAX];
    int64_t id;
    if (api_key_read(text, &id, secret)) {
        api_key_write(again, id, secret);
        check(strcasecmp(text, again) == 0);
    }
    free(text);
}

static void fuzz_page_token(struct slice s)
{
    struct page_filter filter = page_filter_new("/m.S/List", 7);
    char *text = copy_text(s), again[PAGE_TOKEN_MAX];
    struct page_token token, back;
    struct status st = {0};
    page_token_read(&token, &st, &filter, "page_token", text, 0);
    if (st.code == STATUS_OK) {
        check(token.after >= 0 && token.after < INT64_MAX);
        page_token_write(again, &filter, token.after, token.after_name);
        page_token_read(&back, &st, &filter, "page_token", again, 0);
        check(st.code == STATUS_OK && back.after == token.after && strcmp(back.after_name, token.after_name) == 0);
    }
    free(text);
}

static void fuzz_value_block(struct slice s)
{
    struct value_block v;
    struct slice values[2];
    if (value_block_read(&v, s, 2) != ERR_OK)
        return;
    struct buf out = {0};
    value_block_begin(&out, 2, &v.slots);
    for (unsigned slot = bitmap_next(&v.slots, 0); slot < BLOCK_SLOTS; slot = bitmap_next(&v.slots, slot + 1)) {
        check(fill_unpack(value_block_get(&v, slot), values, 2));
        fill_pack(&out, values, 2);
    }
    value_block_free(&v);
    check(value_block_read(&v, buf_slice(&out), 2) == ERR_OK);
    value_block_free(&v);
    buf_free(&out);
}

/* What is parsed is filled as long as it said it would be. Which text has a zero byte can be told of anything. */
static void fuzz_fill(struct slice s)
{
    static const char *const names[] = {"a", "b"};
    const struct slice values[] = {{(const uint8_t *)"value", 5}, {(const uint8_t *)"", 0}};
    struct fill f;
    struct fill_error error;
    struct buf out = {0};
    char field[ZERO_TEXT_FIELD];
    bool found = zero_text_find(&muster__v1__submit_batch_request__descriptor, s, field);
    check(found == (strlen(field) > 0));
    if (!fill_parse(&f, s, names, 2, &error))
        return;
    fill_put(&f, s, values, &out);
    check(buf_len(&out) == fill_size(&f, values));
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const decoders[])(struct slice) = {fuzz_inbox,       fuzz_ack_log,    fuzz_states,  fuzz_bitmap,
                                                     fuzz_token,       fuzz_command_id, fuzz_api_key, fuzz_page_token,
                                                     fuzz_value_block, fuzz_fill};
    if (size > 0)
        decoders[data[0] % (sizeof decoders / sizeof *decoders)]((struct slice){data + 1, size - 1});
    return 0;
}
