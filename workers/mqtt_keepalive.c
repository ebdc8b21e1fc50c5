/* Devices that have been silent for too long. A session stands in the list of the tick in which its time would be over
 * if nothing came any more; looked at then, it goes on to where its last packet puts it. So each is looked at once in
 * one and a half times its keepalive, and a packet costs no more than to note when it came. */
#include "workers/mqtt_internal.h"

#define PAUSED_TICKS 4 /* until one that is not read is looked at again */

void mqtt_keepalive_init(struct mqtt_server *server)
{
    server->looked = server->tick;
    list_init(&server->sessions);
    for (unsigned i = 0; i < MQTT_WHEEL; i++)
        list_init(&server->wheel[i]);
}

/* One and a half times the keepalive (MQTT 3.1.1, 3.1.2.10) in ticks. */
static uint32_t allowed(const struct mqtt_session *m)
{
    return m->keepalive * (1500u / MQTT_TICK_MS);
}

/* `tick` is later than the one being looked at. */
static void stand(struct mqtt_server *server, struct mqtt_session *m, uint32_t tick)
{
    if (tick - server->looked >= MQTT_WHEEL)
        tick = server->looked + MQTT_WHEEL - 1;
    list_append(&server->wheel[tick % MQTT_WHEEL], &m->link);
}

void mqtt_keepalive_add(struct mqtt_server *server, struct mqtt_session *m)
{
    if (m->keepalive)
        stand(server, m, m->seen + allowed(m) + 1);
    else
        list_append(&server->sessions, &m->link);
}

/* One that is not read because its outcomes wait is not to blame. */
static void look(struct mqtt_server *server, struct mqtt_session *m)
{
    list_remove(&m->link);
    if (server->tick - m->seen <= allowed(m)) {
        stand(server, m, m->seen + allowed(m) + 1);
    } else if (m->paused) {
        stand(server, m, server->tick + PAUSED_TICKS);
    } else {
        server->stats.keepalive_timeouts++;
        mqtt_session_end(m, MQTT_KEEP_ALIVE_TIMEOUT);
    }
}

/* After a long stop every list is looked at, once. */
void mqtt_keepalive_look(struct mqtt_server *server)
{
    if (server->tick - server->looked > MQTT_WHEEL)
        server->looked = server->tick - MQTT_WHEEL;
    while (server->looked != server->tick) {
        struct list *due = &server->wheel[++server->looked % MQTT_WHEEL];
        list_for_each (l, tmp, due)
            look(server, container_of(l, struct mqtt_session, link));
    }
}

static void end_list(struct list *sessions, enum mqtt_reason reason)
{
    while (!list_empty(sessions))
        mqtt_session_end(container_of(sessions->next, struct mqtt_session, link), reason);
}

void mqtt_keepalive_end_all(struct mqtt_server *server, enum mqtt_reason reason)
{
    end_list(&server->sessions, reason);
    for (unsigned i = 0; i < MQTT_WHEEL; i++)
        end_list(&server->wheel[i], reason);
}
