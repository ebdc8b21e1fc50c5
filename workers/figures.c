#include "workers/figures.h"

#include "lib/base/metrics.h"
#include "lib/base/stream.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"
#include "lib/store/state.h"
#include "workers/acks.h"
#include "workers/lease.h"
#include "workers/mqtt.h"
#include "workers/routed.h"
#include "workers/session_table.h"
#include "workers/worker.h"

static void on_scrape(void *arg)
{
    struct figures *f = arg;
    f->redis_up = live_up(f->worker->live);
    f->postgres_up = pg_up(f->worker->pg);
    f->number = lease_number(f->worker->lease);
    f->sessions = session_table_count(f->worker->sessions);
    f->held = f->worker->held + routed_waiting(f->worker->routed);
}

static void add_gauges(struct figures *f, struct metrics *m)
{
    metrics_add(m, METRIC_GAUGE, "redis_up", NULL, "1 while Redis is connected.", &f->redis_up);
    metrics_add(m, METRIC_GAUGE, "postgres_up", NULL, "1 while PostgreSQL is connected.", &f->postgres_up);
    metrics_add(m, METRIC_GAUGE, "number", NULL, "The worker's number, 0 for none.", &f->number);
    metrics_add(m, METRIC_GAUGE, "sessions", NULL, "Devices connected.", &f->sessions);
    metrics_add(m, METRIC_GAUGE, "held_commands", NULL, "Commands in the sessions' hands or on their way to them.",
                &f->held);
}

static void add_mqtt(struct metrics *m, const struct mqtt_stats *s)
{
    metrics_add(m, METRIC_GAUGE, "connections", NULL, "Connections, before and after CONNECT.", &s->connections);
    metrics_add(m, METRIC_COUNTER, "accepted_total", NULL, "Connections accepted.", &s->accepted);
    metrics_add(m, METRIC_COUNTER, "connected_total", NULL, "Devices let in.", &s->connected);
    metrics_add(m, METRIC_COUNTER, "refused_total", NULL, "Devices refused because of their token.", &s->refused);
    metrics_add(m, METRIC_COUNTER, "protocol_errors_total", NULL, "Connections ended for breaking MQTT.",
                &s->protocol_errors);
    metrics_add(m, METRIC_COUNTER, "keepalive_timeouts_total", NULL, "Devices silent for too long.",
                &s->keepalive_timeouts);
    metrics_add(m, METRIC_COUNTER, "connect_timeouts_total", NULL, "Connections without CONNECT in time.",
                &s->connect_timeouts);
    metrics_add(m, METRIC_COUNTER, "pings_total", NULL, "PINGREQ packets.", &s->pings);
    metrics_add(m, METRIC_GAUGE, "strangers", NULL, "Connections before CONNECT.", &s->strangers);
    metrics_add(m, METRIC_COUNTER, "strangers_dropped_total", NULL,
                "Silent connections closed before their time, for want of room.", &s->strangers_dropped);
    metrics_add(m, METRIC_COUNTER, "deaf_total", NULL,
                "Times a device was not read because it did not read what it was answered.", &s->deaf);
    metrics_add(m, METRIC_COUNTER, "choked_total", NULL,
                "Times a device was not read because too many results were not durable yet.", &s->choked);
    metrics_add(m, METRIC_COUNTER, "pubacks_deferred_total", NULL,
                "PUBACKs that waited while many commands were under way.", &s->pubacks_deferred);
}

static void add_handshakes(struct metrics *m, const struct stream_stats *s)
{
    metrics_add(m, METRIC_COUNTER, "handshakes_waited_total", NULL, "TLS handshakes that waited in line in a crowd.",
                &s->handshakes_waited);
    metrics_add(m, METRIC_COUNTER, "handshakes_timed_out_total", NULL, "TLS handshakes that peers did not finish.",
                &s->handshakes_timed_out);
    metrics_add(m, METRIC_COUNTER, "handshakes_dropped_total", NULL,
                "TLS handshakes ended because too many were under way.", &s->handshakes_dropped);
    metrics_add(m, METRIC_COUNTER, "accepts_refused_total", NULL, "Connections closed at once, for want of room.",
                &s->accepts_refused);
}

static void add_commands(struct metrics *m, const struct worker_stats *s)
{
    metrics_add(m, METRIC_COUNTER, "commands_pushed_total", NULL, "Deliveries sent to devices.", &s->pushed);
    metrics_add(m, METRIC_COUNTER, "commands_answered_total", NULL, "Outcomes received from devices.", &s->answered);
    metrics_add(m, METRIC_COUNTER, "commands_handed_back_total", NULL, "Commands routed here without a session.",
                &s->handed_back);
    metrics_add(m, METRIC_COUNTER, "sessions_taken_over_total", NULL, "Sessions ended by a newer one.", &s->taken_over);
    metrics_add(m, METRIC_COUNTER, "quarantined_total", NULL, "Commands ended because they broke their connection.",
                &s->quarantined);
    metrics_add(m, METRIC_COUNTER, "fenced_total", NULL, "Times the worker lost its number.", &s->fenced);
    metrics_add_histogram(m, "push_ack_seconds", "From a delivery to the device's outcome.", &s->push_ack_us);
    metrics_add_histogram(m, "submit_push_seconds", "From acceptance to the first delivery.", &s->submit_push_us);
}

static void add_acks(struct metrics *m, const struct acks_stats *s)
{
    static const char *const labels[EVENT_COUNT] = {
        [EVENT_SEND] = "event=\"send\"",       [EVENT_SUCCEED] = "event=\"succeed\"",
        [EVENT_FAIL] = "event=\"fail\"",       [EVENT_REJECT] = "event=\"reject\"",
        [EVENT_NOT_NOW] = "event=\"not_now\"", [EVENT_LOSE] = "event=\"lose\"",
        [EVENT_RETRY] = "event=\"retry\"",     [EVENT_QUARANTINE] = "event=\"quarantine\"",
    };
    for (unsigned e = 0; e < EVENT_COUNT; e++)
        if (labels[e])
            metrics_add(m, METRIC_COUNTER, "events_total", labels[e], "Events of commands recorded.", &s->events[e]);
    metrics_add(m, METRIC_COUNTER, "flushes_total", NULL, "Flushes persisted.", &s->flushes);
    metrics_add(m, METRIC_COUNTER, "flush_retries_total", NULL, "Steps of flushes repeated.", &s->retries);
    metrics_add(m, METRIC_COUNTER, "events_recorded_total", NULL, "Events recorded in Redis.", &s->recorded);
    metrics_add(m, METRIC_COUNTER, "events_persisted_total", NULL, "Events persisted in PostgreSQL.", &s->stored);
    metrics_add(m, METRIC_GAUGE, "result_bytes_waiting", NULL, "Bytes of results not yet durable.", &s->waiting_bytes);
    metrics_add(m, METRIC_GAUGE, "events_waiting", NULL, "Events not yet durable.", &s->waiting);
    metrics_add_histogram(m, "flush_seconds", "From a flush's first event to its commit.", &s->flush_us);
}

void figures_register(struct figures *f, struct worker *worker, struct metrics *m)
{
    *f = (struct figures){.worker = worker};
    metrics_on_scrape(m, on_scrape, f);
    add_gauges(f, m);
    if (worker->mqtt)
        add_mqtt(m, mqtt_server_stats(worker->mqtt));
    add_handshakes(m, stream_hub_stats(worker->hub));
    add_commands(m, &worker->stats);
    add_acks(m, acks_stats(worker->acks));
}
