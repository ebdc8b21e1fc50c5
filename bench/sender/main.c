/* muster-sender: commands a simulated fleet over a broker, to hold Muster beside what people use today. */
#include <arpa/inet.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/sender/sender.h"
#include "lib/base/config.h"

/* Devices of one sender: MQTT's packet ids of commands on their way must not come round. */
#define SENDER_DEVICES_MAX 60000

struct settings {
    char *connect, *protocol, *credentials, *ca;
    int64_t devices, rounds, window, timeout_ms;
    bool tls, insecure, step;
};

static void wrong(const char *flag, const char *value, const char *why)
{
    fprintf(stderr, "muster-sender: --%s %s: %s\n", flag, value ? value : "", why);
}

static void load(struct settings *s, int argc, char **argv)
{
    struct config_option list[] = {
        {"connect", CONFIG_STRING, &s->connect, NULL, 0, 0, "the broker, host:port"},
        {"protocol", CONFIG_STRING, &s->protocol, "mqtt", 0, 0,
         "mqtt (QoS 1 both ways), mqtt-qos0, or nats (core request and reply)"},
        {"credentials", CONFIG_STRING, &s->credentials, NULL, 0, 0,
         "muster-fleet's file of devices; without it the ids muster-fleet makes up"},
        {"devices", CONFIG_INT, &s->devices, "1000", 1, SENDER_DEVICES_MAX, "how many devices to command"},
        {"rounds", CONFIG_INT, &s->rounds, "5", 1, 1000000, "commands to each device"},
        {"window", CONFIG_INT, &s->window, "0", 0, SENDER_DEVICES_MAX, "commands unanswered at a time; 0: any number"},
        {"timeout", CONFIG_DURATION, &s->timeout_ms, "60s", 1, 3600000, "of logging in, and of each round"},
        {"step", CONFIG_BOOL, &s->step, "false", 0, 0, "begin each round at a line on standard input; end at its end"},
        {"tls", CONFIG_BOOL, &s->tls, "true", 0, 0, "TLS; --no-tls connects plain"},
        {"ca", CONFIG_STRING, &s->ca, NULL, 0, 0, "PEM file of the authority the broker's certificate must come from"},
        {"insecure", CONFIG_BOOL, &s->insecure, "false", 0, 0, "do not verify the broker's certificate"},
        {0},
    };
    config_load("muster-sender",
                "Sends each device of a simulated fleet a command over a broker and counts the answers.", list, argc,
                argv, 0);
}

/* NULL, and says so, when there is no such protocol. */
static const struct dialect *dialect_of(const char *protocol)
{
    if (strcmp(protocol, "mqtt") == 0)
        return &mqtt_qos1_dialect;
    if (strcmp(protocol, "mqtt-qos0") == 0)
        return &mqtt_qos0_dialect;
    if (strcmp(protocol, "nats") == 0)
        return &nats_dialect;
    wrong("protocol", protocol, "must be mqtt, mqtt-qos0 or nats");
    return NULL;
}

/* Resolves host:port; false, and says why, when it can't. */
static bool resolve(const char *text, struct sockaddr_storage *address, socklen_t *len)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    const char *colon = text ? strrchr(text, ':') : NULL;

    if (!colon || colon == text || !colon[1]) {
        wrong("connect", text, "must be host:port");
        return false;
    }
    char *host = strndup(text, (size_t)(colon - text));
    int failed = host ? getaddrinfo(host, colon + 1, &hints, &found) : EAI_MEMORY;
    free(host);
    if (failed) {
        wrong("connect", text, gai_strerror(failed));
        return false;
    }
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static void print_round(int64_t number, uint32_t devices, const struct sender_round *round)
{
    printf("{\"event\":\"round\",\"round\":%lld,\"commands\":%u,\"seconds\":%.4f,\"commands_per_second\":%.0f,"
           "\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n",
           (long long)number, devices, round->seconds, devices / round->seconds,
           (double)histogram_quantile(&round->latency, 0.5) / 1e3,
           (double)histogram_quantile(&round->latency, 0.99) / 1e3);
    fflush(stdout);
}

static int measure(const struct settings *s, struct sender *sender)
{
    struct sender_round round;

    printf("{\"event\":\"ready\",\"devices\":%lld}\n", (long long)s->devices);
    fflush(stdout);
    for (int64_t i = 1; i <= s->rounds; i++) {
        if (s->step && !sender_wait_line(sender))
            return 0;
        if (sender_exchange(sender, &round) != ERR_OK)
            return 1;
        print_round(i, (uint32_t)s->devices, &round);
    }
    return 0;
}

static int run(const struct settings *s, const struct credentials *credentials)
{
    struct sockaddr_storage address;
    struct sender_options o = {.dialect = dialect_of(s->protocol),
                               .credentials = credentials,
                               .window = (uint32_t)s->window,
                               .timeout_us = s->timeout_ms * 1000};

    if (!o.dialect || !resolve(s->connect, &address, &o.peer.len))
        return 2;
    o.peer.address = (const struct sockaddr *)&address;
    o.peer.greeting = o.dialect == &nats_dialect;
    o.peer.tls = s->tls ? link_context(s->ca, s->insecure, NULL) : NULL;
    if (s->tls && !o.peer.tls)
        return 1;
    struct sender *sender = sender_open(&o);
    int status = sender ? measure(s, sender) : 1;
    sender_free(&sender);
    SSL_CTX_free(o.peer.tls);
    return status;
}

int main(int argc, char **argv)
{
    struct settings s = {0};
    struct credentials credentials;

    load(&s, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    enum err e = credentials_load(&credentials, s.credentials, 0, (uint32_t)s.devices);
    int status = e == ERR_OK ? run(&s, &credentials) : 2;
    credentials_free(&credentials);
    free(s.connect);
    free(s.protocol);
    free(s.credentials);
    free(s.ca);
    return status;
}
