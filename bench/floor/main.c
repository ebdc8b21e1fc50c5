/* muster-floor: what the sockets alone cost, to hold Muster's core path against. */
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "bench/floor/certificate.h"
#include "bench/floor/floor.h"
#include "lib/base/config.h"
#include "lib/base/tls_takeover.h"

struct settings {
    int64_t port, connections, rounds, window, pause_ms;
    bool tls, step;
    char *cert, *key, *records;
};

static void load(struct settings *s, int argc, char **argv)
{
    struct config_option list[] = {
        {"port", CONFIG_INT, &s->port, "0", 0, 65535, "port on 127.0.0.1; 0: any free one, printed on standard output"},
        {"connections", CONFIG_INT, &s->connections, "10000", 1, 19000, "peers to wait for (muster-fleet --floor)"},
        {"rounds", CONFIG_INT, &s->rounds, "5", 1, 1000000, "commands to each peer"},
        {"window", CONFIG_INT, &s->window, "1024", 1, 19000, "pushes unanswered at a time"},
        {"pause", CONFIG_DURATION, &s->pause_ms, "200ms", 0, 60000, "rest before each round"},
        {"step", CONFIG_BOOL, &s->step, "false", 0, 0, "begin each round at a line on standard input; end at its end"},
        {"tls", CONFIG_BOOL, &s->tls, "true", 0, 0, "TLS 1.3; --no-tls for plain"},
        {"tls-records", CONFIG_STRING, &s->records, "openssl", 0, 0, "openssl, or lean as the worker's"},
        {"tls-cert", CONFIG_STRING, &s->cert, NULL, 0, 0, "PEM file; without it a throw-away ECDSA P-256 one is made"},
        {"tls-key", CONFIG_STRING, &s->key, NULL, 0, 0, "PEM file"},
        {0},
    };
    config_load("muster-floor", "A bare epoll TLS server that exchanges the records of one command.", list, argc, argv,
                0);
    if (strcmp(s->records, "openssl") != 0 && strcmp(s->records, "lean") != 0) {
        fprintf(stderr, "muster-floor: --tls-records %s: must be openssl or lean\n", s->records);
        exit(2);
    }
    if (!s->cert != !s->key) {
        fprintf(stderr, "muster-floor: --tls-cert and --tls-key come together\n");
        exit(2);
    }
}

static bool is_lean(const struct settings *s)
{
    return s->tls && strcmp(s->records, "lean") == 0;
}

/* The worker's settings. Returns owned, or NULL with a line on stderr. */
static SSL_CTX *context(const struct settings *s)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    if (!ctx)
        return NULL;
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(ctx, !is_lean(s));
    if (is_lean(s))
        tls_takeover_prepare(ctx);
    bool good = s->cert ? SSL_CTX_use_certificate_chain_file(ctx, s->cert) == 1 &&
                              SSL_CTX_use_PrivateKey_file(ctx, s->key, SSL_FILETYPE_PEM) == 1
                        : certificate_make(ctx) == ERR_OK;
    if (good)
        return ctx;
    fprintf(stderr, "muster-floor: certificate: %s\n", ERR_reason_error_string(ERR_peek_last_error()));
    SSL_CTX_free(ctx);
    return NULL;
}

static int measure(const struct settings *s, struct floor *floor)
{
    const struct timespec pause = {s->pause_ms / 1000, s->pause_ms % 1000 * 1000000};
    struct floor_round round;
    char line[16];

    printf("{\"event\":\"listening\",\"port\":%d}\n", floor_port(floor));
    fflush(stdout);
    enum err e = floor_accept(floor);
    if (e == ERR_OK)
        printf("{\"event\":\"ready\",\"connections\":%lld}\n", (long long)s->connections);
    fflush(stdout);
    for (int64_t i = 1; i <= s->rounds && e == ERR_OK; i++) {
        nanosleep(&pause, NULL); /* the peers finish what they do, so that a round counts a round */
        if (s->step && !fgets(line, sizeof line, stdin))
            break;
        double rss = floor_rss(floor);
        e = floor_exchange(floor, &round);
        if (e == ERR_OK)
            printf(
                "{\"event\":\"round\",\"round\":%lld,\"commands\":%lld,\"seconds\":%.4f,\"commands_per_second\":%.0f,"
                "\"cpu_us_per_command\":%.2f,\"rss_bytes_per_connection\":%.0f}\n",
                (long long)i, (long long)s->connections, round.seconds, (double)s->connections / round.seconds,
                round.cpu_us, rss);
        fflush(stdout);
    }
    if (e != ERR_OK)
        fprintf(stderr, "muster-floor: a peer failed: %s\n", err_name(e));
    return e == ERR_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct settings s = {0};
    struct rlimit limit;

    load(&s, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    SSL_CTX *tls = s.tls ? context(&s) : NULL;
    if (s.tls && !tls)
        return 1;
    struct floor *floor = floor_new((uint16_t)s.port, (uint32_t)s.connections, (uint32_t)s.window, tls, is_lean(&s));
    if (!floor)
        return 1;
    int status = measure(&s, floor);
    floor_free(&floor);
    SSL_CTX_free(tls);
    free(s.cert);
    free(s.key);
    free(s.records);
    return status;
}
