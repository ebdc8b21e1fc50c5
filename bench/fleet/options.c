#include "bench/fleet/options.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/config.h"

#define DEVICES_MAX 1000000

/* Flags that need more than config.h's types, as text. */
struct texts {
    char *connect, *credentials, *ca, *server_name, *tls_records, *mqtt, *source, *failed, *rejected, *not_now, *crash,
        *duplicate;
    char *silent, *think, *churn, *record;
    int64_t devices, offset, qos, keepalive, rate, handshakes, processes, per_source, backoff, payload, seed,
        exit_after;
};

static _Noreturn void wrong(const char *flag, const char *value, const char *why)
{
    fprintf(stderr, "muster-fleet: --%s %s: %s\n", flag, value, why);
    exit(2);
}

static double share(const char *flag, const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (end == text || *end || !(v >= 0 && v <= 1))
        wrong(flag, text, "must be a share from 0 to 1");
    return v;
}

/* "20ms" or "1.5s"; a bare 0 too. Sets *end behind it. */
static int64_t span_us(const char *text, const char **end)
{
    static const struct {
        const char *unit;
        double us;
    } units[] = {{"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"m", 60e6}};
    char *unit;
    double v = strtod(text, &unit);

    if (unit == text || !(v >= 0 && v < 1e9))
        return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t n = strlen(units[i].unit);
        if (strncmp(unit, units[i].unit, n) == 0 && (unit[n] == '\0' || unit[n] == '.')) {
            *end = unit + n;
            return (int64_t)(v * units[i].us);
        }
    }
    *end = unit;
    return v == 0 ? 0 : -1;
}

/* "20ms" or "10ms..200ms". */
static void think(struct behaviour *b, const char *text)
{
    const char *end;

    b->think_min_us = b->think_max_us = span_us(text, &end);
    if (b->think_min_us >= 0 && strncmp(end, "..", 2) == 0)
        b->think_max_us = span_us(end + 2, &end);
    if (b->think_min_us < 0 || b->think_max_us < b->think_min_us || *end)
        wrong("think", text, "must be a time such as 20ms, or a range such as 10ms..200ms");
}

static void add_target(struct options *o, char *text, const char *all)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    char *colon = strrchr(text, ':'), *host = text;

    if (!colon || colon == text || !colon[1])
        wrong("connect", all, "must be host:port[,host:port…]");
    if (o->target_count == TARGETS_MAX)
        wrong("connect", all, "names more than 64 workers");
    struct target *t = &o->targets[o->target_count++];
    snprintf(t->name, sizeof t->name, "%s", text);
    *colon = '\0';
    if (host[0] == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        host++;
    }
    int failed = getaddrinfo(host, colon + 1, &hints, &found);
    if (failed)
        wrong("connect", t->name, gai_strerror(failed));
    memcpy(&t->address, found->ai_addr, found->ai_addrlen);
    t->len = found->ai_addrlen;
    if (found->ai_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&t->address;
        t->loopback = ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    freeaddrinfo(found);
}

static void add_targets(struct options *o, const char *text)
{
    char *copy = strdup(text), *rest = copy;

    for (char *one; copy && (one = strsep(&rest, ",")) != NULL;)
        add_target(o, one, text);
    free(copy);
}

/* Source addresses: by default 127.1.0.1 and on, when all targets are on loopback. */
static void set_source(struct options *o, const char *text)
{
    o->bind_source = true;
    if (text) {
        if (inet_pton(AF_INET, text, &o->source) != 1)
            wrong("source", text, "must be an IPv4 address");
        return;
    }
    inet_pton(AF_INET, "127.1.0.1", &o->source);
    for (uint32_t i = 0; i < o->target_count; i++)
        o->bind_source = o->bind_source && o->targets[i].loopback;
}

static void take(struct options *o, const struct texts *t)
{
    if (!t->connect)
        wrong("connect", "", "is needed: host:port of one worker or more");
    add_targets(o, t->connect);
    set_source(o, t->source);
    if (strcmp(t->mqtt, "3.1.1") == 0)
        o->mqtt_version = 4;
    else if (strcmp(t->mqtt, "5") == 0 || strcmp(t->mqtt, "5.0") == 0)
        o->mqtt_version = 5;
    else
        wrong("mqtt", t->mqtt, "must be 3.1.1 or 5.0");
    if (o->keep_session && o->mqtt_version != 4)
        wrong("keep-session", "true", "is for --mqtt 3.1.1 only");
    o->lean = strcmp(t->tls_records, "lean") == 0;
    if (!o->lean && strcmp(t->tls_records, "openssl") != 0)
        wrong("tls-records", t->tls_records, "must be openssl or lean");
    struct behaviour *b = &o->behaviour;
    b->failed = share("failed", t->failed);
    b->rejected = share("rejected", t->rejected);
    b->not_now = share("not-now", t->not_now);
    if (b->failed + b->rejected > 1)
        wrong("failed", t->failed, "and --rejected make more than the whole");
    b->crash = share("crash", t->crash);
    b->duplicate = share("duplicate", t->duplicate);
    b->silent = share("silent", t->silent);
    b->seed = (uint64_t)t->seed;
    b->payload_bytes = (uint32_t)t->payload;
    think(b, t->think);
    char *end;
    o->churn = strtod(t->churn, &end);
    if (end == t->churn || *end || !(o->churn >= 0 && o->churn <= 1e6))
        wrong("churn", t->churn, "must be a number of disconnects a second");
}

static void take_numbers(struct options *o, const struct texts *t)
{
    o->credentials = t->credentials;
    o->ca = t->ca;
    o->server_name = t->server_name;
    o->record = t->record;
    o->devices = (uint32_t)t->devices;
    o->offset = (uint32_t)t->offset;
    o->qos = (uint8_t)t->qos;
    o->keepalive_s = (uint16_t)(t->keepalive / 1000);
    o->rate = (uint32_t)t->rate;
    o->handshakes = (uint32_t)t->handshakes;
    o->processes = (uint32_t)t->processes;
    o->per_source = (uint32_t)t->per_source;
    o->backoff_us = t->backoff * 1000;
    o->exit_after = (uint64_t)t->exit_after;
    if (o->hold && !o->control)
        wrong("hold", "true", "needs --control, to be let go");
    if (o->nats && o->floor)
        wrong("nats", "true", "and --floor exclude each other");
}

/* All but those that the options keep. */
static void free_texts(struct texts *t)
{
    char *all[] = {t->connect, t->tls_records, t->mqtt,      t->source, t->failed, t->rejected,
                   t->not_now, t->crash,       t->duplicate, t->silent, t->think,  t->churn};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

void options_load(struct options *o, int argc, char **argv)
{
    struct texts t = {0};

    *o = (struct options){0};
    struct config_option list[] = {
        {"connect", CONFIG_STRING, &t.connect, NULL, 0, 0,
         "workers, host:port[,host:port…]: device i takes the i-th modulo their number, on failure another"},
        {"credentials", CONFIG_STRING, &t.credentials, NULL, 0, 0,
         "file of lines '<device id> <token>'; without it ids are made up (device-0000000) and there is no password"},
        {"devices", CONFIG_INT, &t.devices, "1000", 1, DEVICES_MAX, "how many devices to simulate"},
        {"offset", CONFIG_INT, &t.offset, "0", 0, INT32_MAX, "lines of the credentials file to pass over first"},
        {"nats", CONFIG_BOOL, &o->nats, "false", 0, 0,
         "speak core NATS instead of MQTT: devices.<id>.commands, answers to the reply subject at once"},
        {"floor", CONFIG_BOOL, &o->floor, "false", 0, 0, "exchange muster-floor's raw records instead of MQTT"},
        {"tls", CONFIG_BOOL, &o->tls, "true", 0, 0, "TLS; --no-tls connects plain"},
        {"ca", CONFIG_STRING, &t.ca, NULL, 0, 0, "PEM file of the authority the server's certificate must come from"},
        {"insecure", CONFIG_BOOL, &o->insecure, "false", 0, 0, "do not verify the server's certificate"},
        {"server-name", CONFIG_STRING, &t.server_name, NULL, 0, 0, "name to send (SNI) and to find in the certificate"},
        {"tls-records", CONFIG_STRING, &t.tls_records, "openssl", 0, 0,
         "openssl, or lean: after the handshake records of our own, with TLS 1.3; least memory and time"},
        {"resume", CONFIG_BOOL, &o->resume, "false", 0, 0, "resume TLS sessions at reconnects"},
        {"mqtt", CONFIG_STRING, &t.mqtt, "3.1.1", 0, 0, "protocol version, 3.1.1 or 5.0"},
        {"qos", CONFIG_INT, &t.qos, "1", 0, 1,
         "MQTT QoS of the subscription and of answers; at 0 an answer counts as acked when it is sent"},
        {"keep-session", CONFIG_BOOL, &o->keep_session, "false", 0, 0,
         "MQTT 3.1.1: ask the server to keep the session (clean session 0)"},
        {"keepalive", CONFIG_DURATION, &t.keepalive, "300s", 0, 65535000, "MQTT keepalive in whole seconds; 0: none"},
        {"rate", CONFIG_INT, &t.rate, "0", 0, 1000000, "connection attempts a second at start; 0: as handshakes allow"},
        {"handshakes", CONFIG_INT, &t.handshakes, "64", 1, 10000, "handshakes under way at a time in one process"},
        {"processes", CONFIG_INT, &t.processes, "1", 1, 64, "processes at least; more if descriptors ask for it"},
        {"source", CONFIG_STRING, &t.source, NULL, 0, 0,
         "first source address; the next ones count on from it (default 127.1.0.1 when all workers are on loopback)"},
        {"per-source", CONFIG_INT, &t.per_source, "12000", 1, 14000, "connections per source address"},
        {"backoff", CONFIG_DURATION, &t.backoff, "500ms", 1, 600000,
         "mean wait before the first reconnect; doubles with each failure up to 32 times that"},
        {"failed", CONFIG_STRING, &t.failed, "0", 0, 0, "share of commands answered FAILED"},
        {"rejected", CONFIG_STRING, &t.rejected, "0", 0, 0, "share of commands answered REJECTED (not executed)"},
        {"not-now", CONFIG_STRING, &t.not_now, "0", 0, 0, "share of deliveries answered NOT_NOW (not executed)"},
        {"think", CONFIG_STRING, &t.think, "0", 0, 0, "time between delivery and answer: 20ms, or a range 10ms..200ms"},
        {"churn", CONFIG_STRING, &t.churn, "0", 0, 0, "connections closed on purpose a second, whole fleet"},
        {"crash", CONFIG_STRING, &t.crash, "0", 0, 0,
         "share of deliveries after which the connection drops unanswered, half before, half after executing"},
        {"duplicate", CONFIG_STRING, &t.duplicate, "0", 0, 0, "share of acknowledgements sent twice"},
        {"silent", CONFIG_STRING, &t.silent, "0", 0, 0, "share of devices that take commands and never answer"},
        {"payload", CONFIG_SIZE, &t.payload, "0", 0, 32768, "bytes of result payload in each SUCCEEDED; 0: none"},
        {"seed", CONFIG_INT, &t.seed, "1", 0, INT64_MAX,
         "all choices follow from it, the device's id and the command's"},
        {"record", CONFIG_STRING, &t.record, NULL, 0, 0,
         "file written at exit and at SIGUSR1, a line per command: device id, command id, received, executed, outcome, "
         "acked, and three times"},
        {"record-changes", CONFIG_BOOL, &o->record_changes, "false", 0, 0,
         "write only the commands that something happened to since the file was last written"},
        {"exit-after", CONFIG_INT, &t.exit_after, "0", 0, INT64_MAX, "end after so many PUBACKed acknowledgements"},
        {"control", CONFIG_BOOL, &o->control, "false", 0, 0,
         "read standard input: 'quit', 'dump', 'stats', 'go' or 'reconnect' on a line; its end ends the fleet"},
        {"hold", CONFIG_BOOL, &o->hold, "false", 0, 0, "answer nothing until 'go' on standard input; needs --control"},
        {"json", CONFIG_BOOL, &o->json, "false", 0, 0, "report in JSON"},
        {"quiet", CONFIG_BOOL, &o->quiet, "false", 0, 0, "no line per second"},
        {0},
    };
    config_load("muster-fleet", "A fleet of simulated devices, each with its own MQTT connection.", list, argc, argv,
                0);
    take_numbers(o, &t);
    take(o, &t);
    free_texts(&t);
}

void options_clear(struct options *o)
{
    free(o->credentials);
    free(o->ca);
    free(o->server_name);
    free(o->record);
    *o = (struct options){0};
}
