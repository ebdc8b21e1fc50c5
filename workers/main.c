/* muster-worker: holds the connections of devices, pushes commands to them and records what became of each. */
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/base/config.h"
#include "lib/base/log.h"
#include "lib/base/stream.h"
#include "lib/store/live.h"
#include "lib/store/pg.h"
#include "workers/figures.h"
#include "workers/lease.h"
#include "workers/lifecycle.h"
#include "workers/mqtt.h"
#include "workers/ticket_keys.h"
#include "workers/worker.h"

#define READY_POLL_S 0.02

struct process {
    struct worker worker;
    struct figures figures;
    struct metrics *metrics;
    struct tls *tls;
    struct ticket_keys *ticket_keys;
    char *postgres, *redis, *listen, *listen_plain, *tls_cert, *tls_key, *tls_records, *admin_listen, *log_level;
    int64_t drain_ms, pg_connections;
    int port, plain_port;
    struct ev_signal terminate, interrupt;
    struct ev_timer ready, drain;
};

static void read_settings(struct process *p, int argc, char **argv)
{
    struct worker_options *o = &p->worker.options;
    struct config_option options[] = {
        {"postgres", CONFIG_STRING, &p->postgres, "postgresql:///muster", 0, 0, "PostgreSQL: connection string or URI"},
        {"redis", CONFIG_STRING, &p->redis, "redis://127.0.0.1:6379", 0, 0, "Redis: redis://host:port or unix:///path"},
        {"listen", CONFIG_STRING, &p->listen, "127.0.0.1:8883", 0, 0, "MQTT over TLS: address:port, empty for none"},
        {"listen-plain", CONFIG_STRING, &p->listen_plain, "", 0, 0, "MQTT without TLS, for measuring: address:port"},
        {"tls-cert", CONFIG_STRING, &p->tls_cert, NULL, 0, 0, "certificate chain, PEM file"},
        {"tls-key", CONFIG_STRING, &p->tls_key, NULL, 0, 0, "private key, PEM file"},
        {"tls-records", CONFIG_STRING, &p->tls_records, "openssl", 0, 0,
         "openssl, or lean: records of our own after a TLS 1.3 handshake; least memory and time"},
        {"admin-listen", CONFIG_STRING, &p->admin_listen, "127.0.0.1:0", 0, 0, "metrics and health: address:port"},
        {"log-level", CONFIG_STRING, &p->log_level, "info", 0, 0, "debug, info, warn or error"},
        {"drain-timeout", CONFIG_DURATION, &p->drain_ms, "20s", 1, 3600000, "longest end after SIGTERM"},
        {"in-flight", CONFIG_INT, &o->in_flight, "1", 1, 255, "commands sent and not answered, per device"},
        {"pending-max", CONFIG_INT, &o->held_max, "1000000", 1, 100000000,
         "commands held for all devices; beyond, only urgent ones are taken"},
        {"lease", CONFIG_DURATION, &o->lease_ms, "10s", 300, 3600000, "how long the worker's number holds unrenewed"},
        {"flush-interval", CONFIG_DURATION, &o->flush_ms, "5ms", 1, 10000,
         "how long outcomes are collected; five times that in a crowd"},
        {"seen-interval", CONFIG_DURATION, &o->seen_ms, "30s", 10, 600000,
         "how often it is written which devices have connected"},
        {"not-now-retry", CONFIG_DURATION, &o->not_now_ms, "30s", 1, 86400000,
         "when a command put off is delivered again to a device that stays connected"},
        {"quarantine-after", CONFIG_INT, &o->quarantine_after, "5", 0, 1000,
         "times a device's connection is lost while a command is sent, after which that ends as failed; 0: never"},
        {"keepalive-max", CONFIG_INT, &o->keepalive_max_s, "0", 0, 65535,
         "longest MQTT 5 keepalive granted, in seconds; 0: what the device asks"},
        {"postgres-connections", CONFIG_INT, &p->pg_connections, "2", 1, 64, "connections to PostgreSQL"},
        {"answer-self", CONFIG_BOOL, &o->answer_self, "false", 0, 0,
         "measure the queue path: no devices, every command succeeds at once"},
        {"answer-shares", CONFIG_INT, &o->answer_shares, "1", 1, 1000,
         "workers with --answer-self that share the blocks: block b is for that with --answer-share b modulo it"},
        {"answer-share", CONFIG_INT, &o->answer_share, "0", 0, 999, "which of the --answer-shares is this one's"},
        {0},
    };
    enum log_level level;
    config_load("muster-worker", "Holds the connections of devices and pushes commands to them.", options, argc, argv,
                0);
    if (log_level_parse(p->log_level, &level) != 0) {
        fprintf(stderr, "muster-worker: --log-level %s: must be debug, info, warn or error\n", p->log_level);
        exit(2);
    }
    if (strcmp(p->tls_records, "openssl") != 0 && strcmp(p->tls_records, "lean") != 0) {
        fprintf(stderr, "muster-worker: --tls-records %s: must be openssl or lean\n", p->tls_records);
        exit(2);
    }
    if (!o->answer_self && *p->listen && (!p->tls_cert || !p->tls_key)) {
        fprintf(stderr, "muster-worker: --listen needs --tls-cert and --tls-key\n");
        exit(2);
    }
    if (!o->answer_self && !*p->listen && !*p->listen_plain) {
        fprintf(stderr, "muster-worker: nothing to listen on: --listen or --listen-plain\n");
        exit(2);
    }
    if (o->answer_share >= o->answer_shares) {
        fprintf(stderr, "muster-worker: --answer-share %lld: must be less than --answer-shares %lld\n",
                (long long)o->answer_share, (long long)o->answer_shares);
        exit(2);
    }
    log_init("muster-worker", level);
}

static void free_settings(struct process *p)
{
    char **strings[] = {&p->postgres, &p->redis,       &p->listen,       &p->listen_plain, &p->tls_cert,
                        &p->tls_key,  &p->tls_records, &p->admin_listen, &p->log_level};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        free(*strings[i]);
        *strings[i] = NULL;
    }
}

/* As many connections as the system allows. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            log_warn("descriptor_limit", "limit=%llu", (unsigned long long)limit.rlim_cur);
    }
}

static void name_instance(struct worker *w)
{
    char host[32] = "worker";
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    gethostname(host, sizeof host - 1);
    randombytes_buf(random, sizeof random);
    sodium_bin2hex(hex, sizeof hex, random, sizeof random);
    snprintf(w->instance, sizeof w->instance, "%.31s-%d-%s", host, (int)getpid(), hex);
}

/* --- the parts ---------------------------------------------------------------------------------------------------- */

static bool connect_stores(struct process *p)
{
    struct worker *w = &p->worker;
    struct pg_options options = {
        .conninfo = p->postgres, .connections = (int)p->pg_connections, .application = "muster-worker"};
    w->live = live_new(w->loop, p->redis);
    w->pg = pg_new(w->loop, &options);
    return w->live && w->pg;
}

static bool listen_all(struct process *p)
{
    struct worker *w = &p->worker;
    if (w->mqtt && *p->listen) {
        p->tls = tls_new(&(struct tls_options){.cert_file = p->tls_cert,
                                               .key_file = p->tls_key,
                                               .server = true,
                                               .lean = strcmp(p->tls_records, "lean") == 0});
        if (!p->tls || (p->port = mqtt_server_listen(w->mqtt, p->listen, p->tls)) < 0)
            return false;
        if (!(p->ticket_keys = ticket_keys_new(w->loop, w->pg, p->tls)))
            return false;
    }
    if (w->mqtt && *p->listen_plain && (p->plain_port = mqtt_server_listen(w->mqtt, p->listen_plain, NULL)) < 0)
        return false;
    return true;
}

static const char *ready_reason(void *arg)
{
    return lifecycle_ready(arg);
}

static bool open_admin(struct process *p)
{
    p->metrics = metrics_new("muster_worker");
    if (!p->metrics)
        return false;
    figures_register(&p->figures, &p->worker, p->metrics);
    enum err err = metrics_listen(p->metrics, p->worker.loop, p->admin_listen, ready_reason, &p->worker);
    if (err)
        log_error("admin_listen_failed", "address=%s error=%s", log_quote(p->admin_listen), err_name(err));
    return !err;
}

/* --- signals and readiness ---------------------------------------------------------------------------------------- */

/* Writes the address without its port, and the port given out by the system. */
static void put_address(char *out, size_t size, const char *address, int port)
{
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "unix:", 5) == 0 || !colon)
        snprintf(out, size, "%s", address);
    else
        snprintf(out, size, "%.*s:%d", (int)(colon - address), address, port);
}

static void on_ready_timer(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct process *p = timer->data;
    char listen[128] = "", plain[128] = "", admin[128];
    (void)revents;
    if (lifecycle_ready(&p->worker))
        return;
    ev_timer_stop(loop, timer);
    if (p->worker.mqtt && *p->listen)
        put_address(listen, sizeof listen, p->listen, p->port);
    if (p->worker.mqtt && *p->listen_plain)
        put_address(plain, sizeof plain, p->listen_plain, p->plain_port);
    put_address(admin, sizeof admin, p->admin_listen, metrics_port(p->metrics));
    log_info("ready", "listen=%s plain=%s admin=%s worker=%u instance=%s", listen, plain, admin,
             lease_number(p->worker.lease), p->worker.instance);
}

static void stopped(struct worker *w)
{
    ev_break(w->loop, EVBREAK_ALL);
}

static void on_drain_timeout(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)timer, (void)revents;
    log_warn("drain_timeout", "action=exit");
    ev_break(loop, EVBREAK_ALL);
}

static void on_signal(struct ev_loop *loop, struct ev_signal *signal, int revents)
{
    struct process *p = signal->data;
    (void)revents;
    if (p->worker.draining) {
        ev_break(loop, EVBREAK_ALL);
        return;
    }
    ev_timer_init(&p->drain, on_drain_timeout, (double)p->drain_ms / 1000, 0);
    ev_timer_start(loop, &p->drain);
    lifecycle_drain(&p->worker);
}

static void watch_signals(struct process *p)
{
    struct ev_loop *loop = p->worker.loop;
    signal(SIGPIPE, SIG_IGN);
    ev_signal_init(&p->terminate, on_signal, SIGTERM);
    ev_signal_init(&p->interrupt, on_signal, SIGINT);
    p->terminate.data = p->interrupt.data = p;
    ev_signal_start(loop, &p->terminate);
    ev_signal_start(loop, &p->interrupt);
    ev_timer_init(&p->ready, on_ready_timer, READY_POLL_S, READY_POLL_S);
    p->ready.data = p;
    ev_timer_start(loop, &p->ready);
}

static void free_parts(struct process *p)
{
    metrics_free(&p->metrics);
    worker_unmake(&p->worker);
    ticket_keys_free(&p->ticket_keys);
    tls_free(&p->tls);
}

int main(int argc, char **argv)
{
    struct process *p = calloc(1, sizeof *p);
    if (!p || sodium_init() < 0)
        return 1;
    read_settings(p, argc, argv);
    p->worker.loop = ev_default_loop(0);
    p->worker.stopped = stopped;
    name_instance(&p->worker);
    raise_descriptor_limit();
    bool good = p->worker.loop && connect_stores(p) && worker_make(&p->worker) && listen_all(p) && open_admin(p);
    if (good) {
        watch_signals(p);
        ev_run(p->worker.loop, 0);
        log_info("stopped", "instance=%s", p->worker.instance);
    }
    free_parts(p);
    free_settings(p);
    free(p);
    return good ? 0 : 1;
}
