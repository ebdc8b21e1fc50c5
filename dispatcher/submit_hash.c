#include "dispatcher/submit_hash.h"

#include <sodium.h>
#include <string.h>

#include "dispatcher/batch_values.h"

static void hash_message(crypto_hash_sha256_state *h, struct request *r, const ProtobufCMessage *m)
{
    uint8_t len[8];
    size_t n = m ? protobuf_c_message_get_packed_size(m) : 0;
    store_u64le(len, n);
    crypto_hash_sha256_update(h, len, sizeof len);
    uint8_t *bytes = n ? request_alloc(r, 1, n) : NULL;
    if (bytes) {
        protobuf_c_message_pack(m, bytes);
        crypto_hash_sha256_update(h, bytes, n);
    }
}

/* Of values only a digest goes in, which is made faster. */
static void hash_values(crypto_hash_sha256_state *h, struct request *r, const Muster__V1__Values *values)
{
    uint8_t digest[BATCH_VALUES_DIGEST];
    if (batch_values_digest(values, digest)) {
        crypto_hash_sha256_update(h, (const uint8_t *)"values", sizeof "values");
        crypto_hash_sha256_update(h, digest, sizeof digest);
    } else {
        r->arena.failed = true;
    }
}

/* Over everything that decides what the batch does, each part behind its length. */
void submit_hash(struct request *r, const Muster__V1__SubmitBatchRequest *in, uint8_t hash[SUBMIT_HASH])
{
    crypto_hash_sha256_state h;
    uint8_t fixed[16] = {0};
    crypto_hash_sha256_init(&h);
    hash_message(&h, r, &in->command->base);
    hash_message(&h, r, in->target ? &in->target->base : NULL);
    hash_message(&h, r, in->expires_at ? &in->expires_at->base : NULL);
    store_u32le(fixed, (uint32_t)in->priority);
    fixed[4] = in->require_all_known != 0;
    fixed[5] = in->expires_at != NULL;
    store_u64le(fixed + 8, strlen(in->description));
    crypto_hash_sha256_update(&h, fixed, sizeof fixed);
    crypto_hash_sha256_update(&h, (const uint8_t *)in->description, strlen(in->description));
    /* Behind all that was there before requests had it, so that theirs keep their hashes. */
    crypto_hash_sha256_update(&h, (const uint8_t *)in->target_digest, strlen(in->target_digest));
    if (in->steering)
        hash_message(&h, r, &in->steering->base);
    if (in->retry) {
        crypto_hash_sha256_update(&h, (const uint8_t *)"retry", sizeof "retry");
        hash_message(&h, r, &in->retry->base);
    }
    if (*in->supersede_key) {
        crypto_hash_sha256_update(&h, (const uint8_t *)"supersede_key", sizeof "supersede_key");
        crypto_hash_sha256_update(&h, (const uint8_t *)in->supersede_key, strlen(in->supersede_key));
    }
    if (in->dynamic)
        crypto_hash_sha256_update(&h, (const uint8_t *)"dynamic", sizeof "dynamic");
    if (in->values)
        hash_values(&h, r, in->values);
    if (in->skip_full)
        crypto_hash_sha256_update(&h, (const uint8_t *)"skip_full", sizeof "skip_full");
    crypto_hash_sha256_final(&h, hash);
}
