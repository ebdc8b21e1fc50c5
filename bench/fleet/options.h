/* How the fleet is to behave: flags into one struct, checked.
 * Owns: struct options, the resolved targets. May call: lib/base/config, getaddrinfo. Loop rule: start-up only. */
#ifndef MUSTER_FLEET_OPTIONS_H
#define MUSTER_FLEET_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "bench/fleet/behaviour.h"

#define TARGETS_MAX 64

struct target {
    struct sockaddr_storage address;
    socklen_t len;
    bool loopback; /* in 127.0.0.0/8 */
    char name[80]; /* as given, for reports */
};

struct options {
    /* Who and where to. */
    struct target targets[TARGETS_MAX];
    uint32_t target_count;
    char *credentials; /* file, or NULL: made-up ids without tokens */
    uint32_t devices;
    uint32_t offset;
    /* How to connect. */
    bool floor, nats; /* raw records, or NATS, instead of MQTT */
    bool tls, insecure, resume;
    bool lean; /* TLS records of our own: lib/base/tls_channel.h */
    char *ca, *server_name;
    int mqtt_version; /* 4 or 5 */
    uint8_t qos;      /* 0 or 1 */
    bool keep_session;
    uint16_t keepalive_s;
    uint32_t rate;       /* connection attempts a second, whole fleet; 0: as fast as handshakes allow */
    uint32_t handshakes; /* at most this many under way in one process */
    uint32_t processes;  /* at least; the descriptor limit may ask for more */
    uint32_t per_source; /* connections per source address */
    struct in_addr source;
    bool bind_source;
    int64_t backoff_us; /* first wait before a reconnect, doubles up to 32 times that */
    /* What to do. */
    struct behaviour behaviour;
    double churn; /* disconnects a second, whole fleet */
    /* Reports. */
    char *record;
    bool record_changes;
    uint64_t exit_after; /* acknowledgements with PUBACK; 0: go on */
    bool json, quiet, control;
    bool hold; /* no answers until 'go' on standard input */
};

/* Reads flags, environment and file; on anything wrong prints one line and exits 2. */
void options_load(struct options *o, int argc, char **argv);
void options_clear(struct options *o);

#endif
