/* Commands over an MQTT 3.1.1 broker: PUBLISH to devices/<id>/commands, answers from devices/+/acks. */
#include "bench/fleet/mqtt.h"
#include "bench/sender/sender.h"

#define VERSION 4

/* Packet ids go round; far more than commands can be on their way at a time (SENDER_DEVICES_MAX). */
#define PACKET_IDS 65535

static void login(struct buf *out, uint8_t qos)
{
    const struct mqtt_login as = {.version = VERSION, .device = "muster-sender"};

    mqtt_put_connect(out, &as);
    mqtt_put_subscribe(out, VERSION, 1, (struct mqtt_topic){"+", "acks"}, qos);
}

static void login_qos1(struct buf *out)
{
    login(out, 1);
}

static void login_qos0(struct buf *out)
{
    login(out, 0);
}

static void command_qos1(struct buf *out, const char *device, uint64_t number, struct slice payload)
{
    uint16_t id = (uint16_t)(number % PACKET_IDS + 1);

    mqtt_put_publish(out, VERSION, id, (struct mqtt_topic){device, "commands"}, payload);
}

static void command_qos0(struct buf *out, const char *device, uint64_t number, struct slice payload)
{
    (void)number;
    mqtt_put_publish(out, VERSION, 0, (struct mqtt_topic){device, "commands"}, payload);
}

static enum err on_packet(struct sender *s, struct buf *out, const struct mqtt_packet *in)
{
    switch (in->type) {
    case MQTT_PUBLISH:
        if (in->qos == 1)
            mqtt_put_puback(out, in->packet_id);
        return sender_answered(s, in->payload);
    case MQTT_CONNACK:
        return in->reason == 0 ? ERR_OK : ERR_AUTH;
    case MQTT_SUBACK:
        if (in->reason >= 0x80)
            return ERR_AUTH;
        sender_ready(s);
        return ERR_OK;
    case MQTT_PUBACK: /* the broker has the command; what counts is the device's answer */
        return in->reason < 0x80 ? ERR_OK : ERR_LIMIT;
    default:
        return ERR_PROTOCOL;
    }
}

static enum err data(struct sender *s, struct buf *out, struct slice *in)
{
    struct mqtt_packet packet;
    enum err e = ERR_OK;

    while (e == ERR_OK) {
        enum mqtt_result got = mqtt_read(in, VERSION, &packet);
        if (got != MQTT_DONE)
            return got == MQTT_MORE ? ERR_OK : ERR_PROTOCOL;
        e = on_packet(s, out, &packet);
    }
    return e;
}

const struct dialect mqtt_qos1_dialect = {.login = login_qos1, .command = command_qos1, .data = data};
const struct dialect mqtt_qos0_dialect = {.login = login_qos0, .command = command_qos0, .data = data};
