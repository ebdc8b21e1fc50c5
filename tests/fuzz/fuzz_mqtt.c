/* What a device sends: the first byte says which version spoke before (0: none yet), the rest is a stream of packets.
 * Cut anywhere, a packet must decode to the same as whole; what is accepted must have sane slices; an acknowledgement
 * in a PUBLISH is read as one. */
#include <stdlib.h>
#include <string.h>

#include "proto/delivery.h"
#include "proto/mqtt.h"
#include "tests/fuzz/input.h"

static void inside(struct slice part, struct slice whole)
{
    check(part.len == 0 || (part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

static void look_at_publish(const struct mqtt_publish *p, struct slice whole)
{
    struct acknowledgement ack;
    struct buf result = {0};
    inside(p->topic, whole);
    inside(p->payload, whole);
    check(p->topic.len > 0 && p->qos < 2 && (p->qos == 0) == (p->packet_id == 0));
    touch(p->payload);
    if (acknowledgement_read(&ack, p->payload) != NULL)
        return;
    check(ack.outcome >= 1 && ack.outcome <= 4);
    if (acknowledgement_has_result(&ack))
        acknowledgement_put_result(&result, &ack);
    check(!result.failed);
    buf_free(&result);
}

static void look_at(const struct mqtt_packet *p, struct slice whole)
{
    struct slice rest, filter, value;
    uint8_t options;
    unsigned count = 0;
    switch (p->kind) {
    case MQTT_KIND_CONNECT:
        inside(p->connect.client_id, whole);
        inside(p->connect.user_name, whole);
        inside(p->connect.password, whole);
        (void)!mqtt_user_property(&p->connect.properties, "content-type", &value);
        check(p->connect.version == MQTT_3_1_1 || p->connect.version == MQTT_5);
        break;
    case MQTT_KIND_PUBLISH:
        look_at_publish(&p->publish, whole);
        break;
    case MQTT_KIND_SUBSCRIBE:
    case MQTT_KIND_UNSUBSCRIBE:
        rest = p->filters.filters;
        while (mqtt_next_filter(&rest, &filter, p->kind == MQTT_KIND_SUBSCRIBE ? &options : NULL))
            touch(filter), count++;
        check(count > 0 && rest.len == 0);
        break;
    default:
        break;
    }
}

/* A beginning of a good packet is MORE. */
static void cut(struct slice whole, uint8_t version)
{
    struct mqtt_packet packet;
    uint8_t reason;
    size_t step = whole.len > 64 ? whole.len / 64 : 1;
    for (size_t len = 0; len < whole.len; len += step) {
        struct slice in = {whole.data, len};
        enum mqtt_outcome outcome = mqtt_decode(&in, version, &packet, &reason);
        check(in.len == len && outcome == MQTT_MORE);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t versions[] = {0, MQTT_3_1_1, MQTT_5};
    struct slice in = {data + 1, size - 1};
    struct mqtt_packet packet;
    uint8_t reason;
    if (size == 0)
        return 0;
    uint8_t version = versions[data[0] % 3];
    for (;;) {
        struct slice before = in;
        enum mqtt_outcome outcome = mqtt_decode(&in, version, &packet, &reason);
        if (outcome != MQTT_DONE) {
            check(in.len == before.len && in.data == before.data && (outcome == MQTT_MORE || reason >= 0x80));
            return 0;
        }
        struct slice whole = {before.data, before.len - in.len};
        check(whole.len >= 2);
        look_at(&packet, whole);
        cut(whole, version);
        if (packet.kind == MQTT_KIND_CONNECT)
            version = packet.connect.version;
    }
}
