#include "dispatcher/webhook_message.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/event_present.h"
#include "proto/json.h"

/* EVENT_KIND_BATCH_COMPLETED: "batch.completed". */
static void type_of(char out[64], Muster__V1__EventKind kind)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&muster__v1__event_kind__descriptor, (int)kind);
    snprintf(out, 64, "%s", v ? v->name + strlen("EVENT_KIND_") : "unknown");
    for (char *p = out; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    char *first = strchr(out, '_');
    if (first)
        *first = '.';
}

char *webhook_body(const struct db_webhook_task *task)
{
    struct db_event stored;
    char type[64], *text = NULL, *out = NULL;
    Muster__V1__Event *event = db_event_read(task->text, &stored) ? event_present(task->event, &stored) : NULL;
    if (!event)
        return NULL;
    type_of(type, event->kind);
    text = json_from_message(&event->base, false);
    protobuf_c_message_free_unpacked(&event->base, NULL);
    json_t *data = text ? json_loads(text, 0, NULL) : NULL;
    json_t *at = data ? json_incref(json_object_get(data, "at")) : NULL;
    if (data && at && json_object_set_new(data, "tenant", json_string(task->tenant_name)) == 0) {
        json_t *whole = json_pack("{s:s, s:O, s:O}", "type", type, "timestamp", at, "data", data);
        out = whole ? json_dumps(whole, JSON_COMPACT) : NULL;
        json_decref(whole);
    }
    json_decref(at);
    json_decref(data);
    free(text);
    return out;
}

void webhook_id(char out[WEBHOOK_ID_MAX], const struct db_webhook_task *task)
{
    snprintf(out, WEBHOOK_ID_MAX, "evt_%" PRId64 "_%" PRId64, task->hook, task->event);
}

static void base64(char *out, size_t size, const uint8_t *bytes, size_t n)
{
    sodium_bin2base64(out, size, bytes, n, sodium_base64_VARIANT_ORIGINAL);
}

void webhook_signature(char out[WEBHOOK_SIGNATURE_MAX], const struct db_webhook_task *task, const char *id,
                       int64_t seconds, const char *body)
{
    const struct slice secrets[] = {task->secret, task->former_secret};
    char head[WEBHOOK_ID_MAX + 32], text[64];
    size_t used = 0;
    snprintf(head, sizeof head, "%s.%" PRId64 ".", id, seconds);
    out[0] = 0;
    for (int i = 0; i < 2; i++) {
        crypto_auth_hmacsha256_state h;
        uint8_t mac[crypto_auth_hmacsha256_BYTES];
        if (!secrets[i].len)
            continue;
        crypto_auth_hmacsha256_init(&h, secrets[i].data, secrets[i].len);
        crypto_auth_hmacsha256_update(&h, (const uint8_t *)head, strlen(head));
        crypto_auth_hmacsha256_update(&h, (const uint8_t *)body, strlen(body));
        crypto_auth_hmacsha256_final(&h, mac);
        base64(text, sizeof text, mac, sizeof mac);
        used += (size_t)snprintf(out + used, WEBHOOK_SIGNATURE_MAX - used, "%sv1,%s", used ? " " : "", text);
    }
}

void webhook_secret(char out[WEBHOOK_SECRET_MAX], const uint8_t secret[WEBHOOK_SECRET_BYTES])
{
    char text[WEBHOOK_SECRET_MAX - 6];
    base64(text, sizeof text, secret, WEBHOOK_SECRET_BYTES);
    snprintf(out, WEBHOOK_SECRET_MAX, "whsec_%s", text);
}
