/* muster-submit-load: commands to one device each, from many callers, and how long each waited for its answer. */
#include <signal.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench/submit/load.h"
#include "lib/base/config.h"
#include "lib/base/log.h"

struct settings {
    char *target, *ca, *api_key, *ids;
    int64_t connections, streams, rate, warmup_ms, measure_ms;
    bool plaintext;
};

/* False, and says so, when something is missing. */
static bool settings_load(struct settings *s, int argc, char **argv)
{
    struct config_option list[] = {
        {"target", CONFIG_STRING, &s->target, "127.0.0.1:7443", 0, 0, "address:port of a dispatcher"},
        {"ca", CONFIG_STRING, &s->ca, NULL, 0, 0, "PEM file of the authority to trust"},
        {"plaintext", CONFIG_BOOL, &s->plaintext, "false", 0, 0, "no TLS"},
        {"api-key", CONFIG_STRING, &s->api_key, NULL, 0, 0, "API key of the tenant"},
        {"ids", CONFIG_STRING, &s->ids, NULL, 0, 0, "file with the ids of the devices, one a line"},
        {"connections", CONFIG_INT, &s->connections, "8", 1, 10000, "connections"},
        {"streams", CONFIG_INT, &s->streams, "16", 1, 1000, "calls under way on each, without --rate"},
        {"rate", CONFIG_INT, &s->rate, "0", 0, 1000000, "calls a second; 0: each caller's next when it is answered"},
        {"warmup", CONFIG_DURATION, &s->warmup_ms, "1s", 0, 600000, "calls of this time do not count"},
        {"measure", CONFIG_DURATION, &s->measure_ms, "10s", 1, 3600000, "calls of this time do"},
        {0},
    };
    config_load("muster-submit-load", "Submits commands to one device each and measures the answers.", list, argc, argv,
                0);
    if (s->api_key && s->ids)
        return true;
    fprintf(stderr, "muster-submit-load: --api-key and --ids are needed\n");
    return false;
}

static void settings_free(struct settings *s)
{
    free(s->target);
    free(s->ca);
    free(s->api_key);
    free(s->ids);
}

/* Lines of a file. Returns owned: the array, whose strings stand in *text, owned too; NULL, and says so, without any.
 */
static char **read_ids(const char *path, char **text, size_t *count)
{
    FILE *f = fopen(path, "rbe");
    long size = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    char **ids = NULL;
    *text = size > 0 && fseek(f, 0, SEEK_SET) == 0 ? calloc((size_t)size + 1, 1) : NULL;
    if (*text && fread(*text, 1, (size_t)size, f) == (size_t)size)
        ids = calloc((size_t)size, sizeof *ids); /* no more lines than bytes */
    *count = 0;
    char *next = NULL;
    for (char *line = ids ? strtok_r(*text, "\n", &next) : NULL; line; line = strtok_r(NULL, "\n", &next))
        ids[(*count)++] = line;
    if (f)
        fclose(f);
    if (*count)
        return ids;
    fprintf(stderr, "muster-submit-load: --ids %s: no ids there\n", path);
    free(ids);
    return NULL;
}

static double cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return 1e6 * (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void report(const struct load_result *r)
{
    const struct histogram *h = &r->latency_us;
    double calls = (double)(r->ok + r->failed);
    printf("{\"event\":\"done\",\"ok\":%llu,\"failed\":%llu,\"seconds\":%.3f,\"per_second\":%.1f,\"p50_ms\":%.3f,"
           "\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,\"own_cpu_us_per_call\":%.2f}\n",
           (unsigned long long)r->ok, (unsigned long long)r->failed, r->seconds,
           r->seconds > 0 ? (double)r->ok / r->seconds : 0, (double)histogram_quantile(h, 0.5) / 1e3,
           (double)histogram_quantile(h, 0.9) / 1e3, (double)histogram_quantile(h, 0.99) / 1e3,
           (double)histogram_quantile(h, 0.999) / 1e3, (double)r->max_us / 1e3, calls > 0 ? cpu_us() / calls : 0);
    if (r->failed)
        fprintf(stderr, "muster-submit-load: %llu calls failed, the first with %s\n", (unsigned long long)r->failed,
                r->error);
}

static void finish(void *arg)
{
    ev_break(arg, EVBREAK_ALL);
}

/* Exit status. */
static int measure(const struct load_options *o)
{
    int status = 1;
    struct ev_loop *loop = ev_default_loop(0);
    struct stream_hub *hub = loop ? stream_hub_new(loop) : NULL;
    struct load *load = hub ? load_new(hub, o, finish, loop) : NULL;

    if (load) {
        ev_run(loop, 0);
        const struct load_result *r = load_result(load);
        report(r);
        status = r->ok && !r->failed ? 0 : 1;
    }
    load_free(&load);
    stream_hub_free(&hub);
    return status;
}

static int run(const struct settings *s)
{
    struct tls_options tls = {.ca_file = s->ca, .alpn = "h2"};
    struct load_options o = {.target = s->target,
                             .api_key = s->api_key,
                             .connections = (int)s->connections,
                             .streams = (int)s->streams,
                             .rate = s->rate,
                             .warmup_ms = s->warmup_ms,
                             .measure_ms = s->measure_ms};
    char *text;
    char **ids = read_ids(s->ids, &text, &o.id_count);
    int status = ids ? 1 : 2;

    o.ids = ids;
    if (ids && sodium_init() >= 0 && (s->plaintext || (o.tls = tls_new(&tls))))
        status = measure(&o);
    tls_free(&o.tls);
    free(ids);
    free(text);
    return status;
}

int main(int argc, char **argv)
{
    struct settings s = {0};
    int status = 2;

    signal(SIGPIPE, SIG_IGN);
    log_init("muster-submit-load", LOG_WARN);
    if (settings_load(&s, argc, argv))
        status = run(&s);
    settings_free(&s);
    return status;
}
