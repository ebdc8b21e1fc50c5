/* muster-dispatcher: accepts batches over gRPC, answers for them, and leads when it holds the lease. */
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dispatcher/accept.h"
#include "dispatcher/auth.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/event_watch.h"
#include "dispatcher/gate_keeper.h"
#include "dispatcher/leader.h"
#include "dispatcher/mailboxes.h"
#include "dispatcher/refusals.h"
#include "dispatcher/request.h"
#include "dispatcher/service_admin.h"
#include "dispatcher/service_command.h"
#include "dispatcher/service_control.h"
#include "dispatcher/service_device.h"
#include "dispatcher/service_event.h"
#include "dispatcher/submit.h"
#include "dispatcher/upkeep.h"
#include "dispatcher/watch.h"
#include "lib/base/clock.h"
#include "lib/base/config.h"
#include "lib/base/grpc_health.h"
#include "lib/base/grpc_reflection.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"

#define MIGRATE_RETRY_MS 500
#define LANE_LEADER      0 /* what the leader writes is ordered; all else goes over any connection */

struct process {
    struct dispatcher d;
    struct upkeep *upkeep;
    struct stream_hub *hub;
    struct tls *tls_context;
    struct grpc_server *server;
    struct grpc_health *health;
    struct grpc_reflection *reflection;
    struct metrics *metrics;
    ev_signal on_term, on_int;
    bool ready_logged, draining;
    int ending; /* what a drain still waits for */
    /* settings */
    char *postgres, *redis, *listen, *tls_cert, *tls_key, *admin_listen, *log_level;
    int64_t drain_ms, lease_ms, connections, events_ms, webhook_retry_ms, webhook_life_ms, presence_ms;
    char *webhook_ca;
    bool webhook_private;
    bool migrate, tls;
};

static const char *const services[] = {"",
                                       "muster.v1.CommandService",
                                       "muster.v1.ControlService",
                                       "muster.v1.DeviceService",
                                       "muster.v1.AdminService",
                                       "muster.v1.EventService"};

/* --- settings ------------------------------------------------------------------------------------------------------
 */

static void load_settings(struct process *p, int argc, char **argv)
{
    struct config_option options[] = {
        {"postgres", CONFIG_STRING, &p->postgres, "", 0, 0, "libpq connection string or URI of PostgreSQL"},
        {"postgres-connections", CONFIG_INT, &p->connections, "6", 4, 64, "connections to PostgreSQL"},
        {"redis", CONFIG_STRING, &p->redis, "redis://127.0.0.1:6379", 0, 0, "Redis: redis://host:port or unix:///path"},
        {"listen", CONFIG_STRING, &p->listen, "127.0.0.1:7443", 0, 0, "address:port for gRPC, port 0 for any free one"},
        {"tls", CONFIG_BOOL, &p->tls, "true", 0, 0, "TLS for gRPC; --no-tls is for tests and trusted proxies"},
        {"tls-cert", CONFIG_STRING, &p->tls_cert, NULL, 0, 0, "PEM file with the server's certificate chain"},
        {"tls-key", CONFIG_STRING, &p->tls_key, NULL, 0, 0, "PEM file with its key"},
        {"admin-listen", CONFIG_STRING, &p->admin_listen, "127.0.0.1:9443", 0, 0,
         "address:port for /metrics, /livez and /readyz"},
        {"migrate", CONFIG_BOOL, &p->migrate, "true", 0, 0, "apply missing migrations at start"},
        {"leader-lease", CONFIG_DURATION, &p->lease_ms, "4s", 1000, 600000,
         "after so long without a sign of life of the leader another dispatcher leads; the same for all"},
        {"event-retention", CONFIG_DURATION, &p->events_ms, "7d", 1000, 366 * 86400000ll,
         "how long events are kept for those who watch and for web hooks; the same for all"},
        {"mailbox-max", CONFIG_INT, &p->d.mailbox_max, "1000", 0, 60000,
         "open commands of one device; batches for one that has them are refused; 0: any number; the same for all"},
        {"presence-interval", CONFIG_DURATION, &p->presence_ms, "2s", 500, 600000,
         "how often it is looked which devices have come and gone, for tenants that want these events"},
        {"webhook-ca", CONFIG_STRING, &p->webhook_ca, NULL, 0, 0,
         "PEM file of the authorities that web hooks' certificates are checked by (default: the system's)"},
        {"webhook-private", CONFIG_BOOL, &p->webhook_private, "false", 0, 0,
         "web hooks may also be at loopback, private and other addresses that are not public"},
        {"webhook-retry", CONFIG_DURATION, &p->webhook_retry_ms, "5s", 10, 3600000,
         "until an event that a web hook did not take is sent again; each further time twice as long, an hour at most"},
        {"webhook-lifetime", CONFIG_DURATION, &p->webhook_life_ms, "24h", 10, 7 * 86400000ll,
         "an event older than this that a web hook does not take is given up; the same for all"},
        {"drain-timeout", CONFIG_DURATION, &p->drain_ms, "10s", 0, 3600000, "time open calls get on SIGTERM"},
        {"log-level", CONFIG_STRING, &p->log_level, "info", 0, 0, "debug, info, warn or error"},
        {0},
    };
    config_load("muster-dispatcher", "Accepts batches of commands over gRPC and leads them to their devices.", options,
                argc, argv, 0);
    enum log_level level;
    if (log_level_parse(p->log_level, &level) != 0) {
        fprintf(stderr, "muster-dispatcher: --log-level: %s is none of debug, info, warn, error\n", p->log_level);
        exit(2);
    }
    if (p->tls && (!p->tls_cert || !p->tls_key)) {
        fprintf(stderr, "muster-dispatcher: --tls-cert and --tls-key are needed, or --no-tls\n");
        exit(2);
    }
    log_init("muster-dispatcher", level);
}

static void free_settings(struct process *p)
{
    char **strings[] = {&p->postgres, &p->redis,        &p->listen,    &p->tls_cert,
                        &p->tls_key,  &p->admin_listen, &p->log_level, &p->webhook_ca};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        free(*strings[i]);
}

/* PostgreSQL may be away when a dispatcher starts, as it may at any other time: it is waited for. Signals still end the
 * process at once. */
static bool migrate(const struct process *p)
{
    const struct timespec pause = {.tv_nsec = MIGRATE_RETRY_MS * 1000000L};
    char error[512];
    int applied = 0;
    enum err err = ERR_OK;
    if (!p->migrate)
        return true;
    while ((err = pg_migrate(p->postgres, error, sizeof error, &applied)) == ERR_UNAVAILABLE) {
        log_warn("migrate_waits", "why=%s", log_quote(error));
        nanosleep(&pause, NULL);
    }
    if (err != ERR_OK)
        log_error("migrate_failed", "error=%s why=%s", err_name(err), log_quote(error));
    return err == ERR_OK;
}

/* --- stores --------------------------------------------------------------------------------------------------------
 */

static void on_postgres(void *arg, bool up)
{
    struct process *p = arg;
    log_info("postgres", "up=%s", up ? "true" : "false");
    for (size_t i = 0; i < sizeof services / sizeof *services && !p->draining; i++)
        grpc_health_set(p->health, services[i], up);
    if (!up || p->ready_logged)
        return;
    p->ready_logged = true;
    char host[128];
    snprintf(host, sizeof host, "%s", p->listen);
    char *colon = strrchr(host, ':');
    if (colon)
        *colon = 0;
    char admin[128];
    snprintf(admin, sizeof admin, "%s", p->admin_listen);
    colon = strrchr(admin, ':');
    if (colon)
        *colon = 0;
    log_info("ready", "listen=%s:%d admin=%s:%d tls=%s", host, grpc_server_port(p->server), admin,
             metrics_port(p->metrics), p->tls ? "true" : "false");
}

static void on_redis(void *arg, bool up)
{
    (void)arg;
    log_info("redis", "up=%s", up ? "true" : "false");
}

static void on_backlog(void *arg, const struct queue_heavy *heavy, size_t count)
{
    acceptor_hold(((struct process *)arg)->d.acceptor, heavy, count);
}

static void on_full(void *arg, uint32_t tenant, uint32_t block, const struct bitmap *full)
{
    mailboxes_told(((struct process *)arg)->d.mailboxes, tenant, block, full, clock_mono_us());
}

static void on_event(void *arg, struct slice text)
{
    struct process *p = arg;
    leader_event(p->d.leader, text);
    watches_event(p->d.watches, text);
    event_watches_told(p->d.event_watches, text);
}

/* Unique per life of a process. */
static void holder_name(char *out, size_t size)
{
    char host[64];
    if (gethostname(host, sizeof host) != 0)
        snprintf(host, sizeof host, "unknown");
    host[sizeof host - 1] = 0;
    snprintf(out, size, "%s:%d:%08" PRIx32, host, (int)getpid(), randombytes_random());
}

static bool start_stores(struct process *p)
{
    struct dispatcher *d = &p->d;
    char holder[128];
    holder_name(holder, sizeof holder);
    struct pg_options pg = {
        .conninfo = p->postgres, .connections = (int)p->connections, .application = "muster-dispatcher"};
    struct leader_options leader = {.holder = holder,
                                    .lane = LANE_LEADER,
                                    .lease_ms = p->lease_ms,
                                    .events_ms = p->events_ms,
                                    .webhook_retry_ms = p->webhook_retry_ms,
                                    .webhook_life_ms = p->webhook_life_ms,
                                    .presence_ms = p->presence_ms,
                                    .web = {.ca_file = p->webhook_ca, .allow_private = p->webhook_private},
                                    .redis = p->redis,
                                    .mailbox_max = (uint32_t)d->mailbox_max};
    d->pg = pg_new(d->loop, &pg);
    d->live = live_new(d->loop, p->redis);
    if (!d->pg || !d->live)
        return false;
    d->auth = auth_new();
    d->acceptor = acceptor_new(d->loop, d->pg, submit_committed, d);
    request_limits(d);
    d->gates = gate_keeper_new(d->loop, d->pg, d->live);
    d->watches = watches_new(d);
    d->event_watches = event_watches_new(d);
    d->webhook_life_ms = p->webhook_life_ms;
    d->mailboxes = mailboxes_new();
    d->refusals = refusals_new(d->loop, d->pg);
    list_init(&d->exports);
    d->leader = leader_new(d->loop, d->pg, d->live, &leader);
    p->upkeep = upkeep_new(d);
    if (!p->upkeep || !d->auth || !d->acceptor || !d->gates || !d->watches || !d->event_watches || !d->mailboxes ||
        !d->refusals || !d->leader)
        return false;
    pg_on_change(d->pg, on_postgres, p);
    live_on_change(d->live, on_redis, p);
    live_subscribe(d->live, on_event, p);
    leader_on_backlog(d->leader, on_backlog, p);
    leader_on_full(d->leader, on_full, p);
    return true;
}

/* --- gRPC ----------------------------------------------------------------------------------------------------------
 */

static bool start_server(struct process *p)
{
    struct tls_options tls = {.cert_file = p->tls_cert, .key_file = p->tls_key, .alpn = "h2", .server = true};
    p->tls_context = p->tls ? tls_new(&tls) : NULL;
    p->server = grpc_server_new(p->hub, NULL);
    if (!p->server || (p->tls && !p->tls_context))
        return false;
    grpc_server_add(p->server, service_command_methods, auth_admit, &p->d);
    grpc_server_add(p->server, service_control_methods, auth_admit, &p->d);
    grpc_server_add(p->server, service_device_methods, auth_admit, &p->d);
    grpc_server_add(p->server, service_admin_methods, auth_admit, &p->d);
    grpc_server_add(p->server, service_event_methods, auth_admit, &p->d);
    p->health = grpc_health_new(p->server);
    p->reflection = grpc_reflection_new(p->server, grpc_reflection_builtin());
    return p->health && p->reflection && grpc_server_listen(p->server, p->listen, p->tls_context) == ERR_OK;
}

static const char *not_ready(void *arg)
{
    const struct process *p = arg;
    return p->draining ? "draining" : pg_up(p->d.pg) ? NULL : "PostgreSQL is not available";
}

static bool start_metrics(struct process *p)
{
    const struct grpc_server_stats *s = grpc_server_stats(p->server);
    const struct dispatcher_figures *f = &p->d.figures;
    const struct leader_figures *l = leader_figures(p->d.leader);
    const struct acceptor_figures *a = acceptor_figures(p->d.acceptor);
    const struct stream_stats *h = stream_hub_stats(p->hub);
    const struct {
        enum metric_type type;
        const char *name, *help;
        const uint64_t *value;
    } table[] = {
        {METRIC_COUNTER, "batches_accepted_total", "Batches made durable", &f->batches_accepted},
        {METRIC_COUNTER, "commands_accepted_total", "Commands of these batches", &f->commands_accepted},
        {METRIC_COUNTER, "batches_replayed_total", "Requests answered from an earlier one", &f->batches_replayed},
        {METRIC_COUNTER, "mailbox_refused_total", "Batches refused because of devices with too many open commands",
         &f->mailbox_refused},
        {METRIC_COUNTER, "quota_refused_total", "Batches and imports refused by a quota of their tenant",
         &f->quota_refused},
        {METRIC_COUNTER, "devices_imported_total", "Devices registered anew", &f->devices_imported},
        {METRIC_GAUGE, "accept_waiting", "Batches waiting to be made durable", &a->waiting},
        {METRIC_COUNTER, "accept_shed_total", "Batches turned away because too many were waiting", &a->turned_away},
        {METRIC_COUNTER, "accept_held_total", "Times all that waited had to wait for the leader", &a->held},
        {METRIC_GAUGE, "requests", "Requests being handled, streams not counted", &f->requests},
        {METRIC_COUNTER, "requests_shed_total", "Requests turned away because of too many", &f->requests_shed},
        {METRIC_COUNTER, "auth_lookups_total", "API keys asked for in PostgreSQL", &f->auth_lookups},
        {METRIC_COUNTER, "auth_refused_total", "Calls refused for their API key", &f->auth_refused},
        {METRIC_COUNTER, "store_errors_total", "Calls that failed because of a store", &f->store_errors},
        {METRIC_COUNTER, "progress_polls_total", "Times the progress of a batch was counted", &f->progress_polls},
        {METRIC_GAUGE, "watchers", "Open WatchBatch streams", &f->watchers},
        {METRIC_GAUGE, "event_watchers", "Open WatchEvents streams", &f->event_watchers},
        {METRIC_COUNTER, "events_told_total", "Events told to WatchEvents streams", &f->events_told},
        {METRIC_GAUGE, "connections", "gRPC connections", &s->connections},
        {METRIC_GAUGE, "calls", "gRPC calls under way", &s->calls},
        {METRIC_COUNTER, "calls_total", "gRPC calls", &s->calls_total},
        {METRIC_COUNTER, "calls_failed_total", "gRPC calls not ended with OK", &s->calls_failed},
        {METRIC_COUNTER, "grpc_floods_total", "Connections ended because of a flood of frames", &s->goaway_floods},
        {METRIC_COUNTER, "grpc_strangers_dropped_total",
         "Silent connections without a call closed before their time, for want of room", &s->strangers_dropped},
        {METRIC_COUNTER, "grpc_unread_total", "Answers given up because the peer did not read them",
         &s->unread_dropped},
        {METRIC_COUNTER, "handshakes_waited_total", "TLS handshakes that waited in line in a crowd",
         &h->handshakes_waited},
        {METRIC_COUNTER, "handshakes_timed_out_total", "TLS handshakes that peers did not finish",
         &h->handshakes_timed_out},
        {METRIC_COUNTER, "handshakes_dropped_total", "TLS handshakes ended because too many were under way",
         &h->handshakes_dropped},
        {METRIC_COUNTER, "accepts_refused_total", "Connections closed at once, for want of room", &h->accepts_refused},
        {METRIC_COUNTER, "grpc_bytes_in_total", "Bytes received by gRPC connections", &s->bytes_in},
        {METRIC_COUNTER, "grpc_bytes_out_total", "Bytes sent by gRPC connections", &s->bytes_out},
        {METRIC_GAUGE, "leading", "1 while this dispatcher is the leader", &l->leading},
        {METRIC_GAUGE, "open_batches", "Batches not closed, known to the leader", &l->open_batches},
        {METRIC_GAUGE, "full_devices", "Devices with as many open commands as they may have", &l->full_devices},
        {METRIC_GAUGE, "waiting_batches", "Batches the leader has not begun to route", &l->waiting_batches},
        {METRIC_GAUGE, "open_commands", "Commands not terminal, known to the leader", &l->open_commands},
        {METRIC_GAUGE, "log_rows", "Rows of the acknowledgement log not yet folded", &l->log_rows},
        {METRIC_COUNTER, "routed_blocks_total", "Blocks of batches handed to Redis", &l->routed_blocks},
        {METRIC_COUNTER, "routed_commands_total", "Commands given to workers", &l->routed_commands},
        {METRIC_COUNTER, "folded_blocks_total", "Blocks written with final states", &l->folded_blocks},
        {METRIC_COUNTER, "folded_entries_total", "Log entries folded into blocks", &l->folded_entries},
        {METRIC_COUNTER, "closed_batches_total", "Batches whose last command became terminal", &l->closed_batches},
        {METRIC_COUNTER, "canceled_batches_total", "Cancels confirmed", &l->canceled_batches},
        {METRIC_COUNTER, "expired_batches_total", "Batches ended by their expiry", &l->expired_batches},
        {METRIC_COUNTER, "webhooks_taken_total", "Events that web hooks took", &l->webhooks_taken},
        {METRIC_COUNTER, "webhooks_failed_total", "Attempts to send to web hooks that failed", &l->webhooks_failed},
        {METRIC_COUNTER, "devices_told_total", "Devices of which it was told that they came or went", &l->devices_told},
        {METRIC_COUNTER, "rebuilds_total", "Times Redis was filled again from PostgreSQL", &l->rebuilds},
        {METRIC_COUNTER, "reaped_workers_total", "Dead workers whose devices were freed", &l->reaped_workers},
    };
    p->metrics = metrics_new("muster_dispatcher");
    if (!p->metrics)
        return false;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        metrics_add(p->metrics, table[i].type, table[i].name, NULL, table[i].help, table[i].value);
    metrics_add_histogram(p->metrics, "accept_seconds", "From a SubmitBatch request to its durable answer", &f->accept);
    return metrics_listen(p->metrics, p->d.loop, p->admin_listen, not_ready, p) == ERR_OK;
}

/* --- the end -------------------------------------------------------------------------------------------------------
 */

static void on_ended(void *arg)
{
    struct process *p = arg;
    if (--p->ending == 0)
        ev_break(p->d.loop, EVBREAK_ALL);
}

/* Nobody is refused any more. */
static void on_drained(void *arg)
{
    struct process *p = arg;
    refusals_end(p->d.refusals, on_ended, p);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
    (void)revents;
    struct process *p = w->data;
    if (p->draining) {
        ev_break(loop, EVBREAK_ALL);
        return;
    }
    log_info("draining", "signal=%d", w->signum);
    p->draining = true;
    p->ending = 2;
    grpc_health_shutdown(p->health);
    watches_end(p->d.watches);
    event_watches_end(p->d.event_watches);
    leader_resign(p->d.leader, on_ended, p);
    grpc_server_drain(p->server, p->drain_ms, on_drained, p);
}

static void watch_signals(struct process *p)
{
    signal(SIGPIPE, SIG_IGN);
    ev_signal_init(&p->on_term, on_signal, SIGTERM);
    ev_signal_init(&p->on_int, on_signal, SIGINT);
    p->on_term.data = p->on_int.data = p;
    ev_signal_start(p->d.loop, &p->on_term);
    ev_signal_start(p->d.loop, &p->on_int);
}

/* Parts go before what they stand on; what is still under way in a store ends there without effect. */
static void free_all(struct process *p)
{
    metrics_free(&p->metrics);
    grpc_server_free(&p->server);
    leader_free(&p->d.leader);
    gate_keeper_free(&p->d.gates);
    live_free(&p->d.live);
    pg_free(&p->d.pg);
    upkeep_free(&p->upkeep);
    grpc_reflection_free(&p->reflection);
    grpc_health_free(&p->health);
    watches_free(&p->d.watches);
    mailboxes_free(&p->d.mailboxes);
    refusals_free(&p->d.refusals);
    event_watches_free(&p->d.event_watches);
    acceptor_free(&p->d.acceptor);
    auth_free(&p->d.auth);
    tls_free(&p->tls_context);
    stream_hub_free(&p->hub);
    free_settings(p);
}

int main(int argc, char **argv)
{
    struct process process = {0};
    struct process *p = &process;
    load_settings(p, argc, argv);
    if (sodium_init() < 0 || !migrate(p))
        return 1;
    p->d.loop = ev_default_loop(0);
    p->hub = p->d.loop ? stream_hub_new(p->d.loop) : NULL;
    bool ok = p->hub && start_server(p) && start_stores(p) && start_metrics(p);
    if (ok) {
        watch_signals(p);
        ev_run(p->d.loop, 0);
        log_info("stopped", "calls_total=%" PRIu64, grpc_server_stats(p->server)->calls_total);
    } else {
        log_error("start_failed", "listen=%s", p->listen);
    }
    free_all(p);
    return ok ? 0 : 1;
}
