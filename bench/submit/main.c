/* muster-submit-load: commands to one device each, from many callers, and how long each waited for its answer. */
#include <errno.h>
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
    char *target, *ca, *api_key, *ids, *priority, *record;
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
        {"api-key", CONFIG_STRING, &s->api_key, NULL, 0, 0, "API key of the tenant; or of several, with commas"},
        {"ids", CONFIG_STRING, &s->ids, NULL, 0, 0,
         "file with the ids of the devices, one a line; with several keys the tenants' in turn"},
        {"priority", CONFIG_STRING, &s->priority, "", 0, 0, "urgent, normal or bulk; without, the command's own"},
        {"record", CONFIG_STRING, &s->record, NULL, 0, 0, "file for each call's batch, and since when it was due"},
        {"connections", CONFIG_INT, &s->connections, "8", 1, 10000, "connections; with several keys theirs in turn"},
        {"streams", CONFIG_INT, &s->streams, "16", 1, 1000, "calls under way on each, without --rate"},
        {"rate", CONFIG_INT, &s->rate, "0", 0, 1000000, "calls a second; 0: each caller's next when it is answered"},
        {"warmup", CONFIG_DURATION, &s->warmup_ms, "1s", 0, 600000, "calls of this time do not count"},
        {"measure", CONFIG_DURATION, &s->measure_ms, "10s", 1, 3600000, "calls of this time do"},
        {0},
    };
    config_load("muster-submit-load", "Submits commands to one device each and measures the answers.", list, argc, argv,
                0);
    if (!s->api_key || !s->ids)
        fprintf(stderr, "muster-submit-load: --api-key and --ids are needed\n");
    else if (strchr(s->api_key, ',') && !s->rate)
        fprintf(stderr, "muster-submit-load: several keys need a --rate\n");
    else
        return true;
    return false;
}

static void settings_free(struct settings *s)
{
    free(s->target);
    free(s->ca);
    free(s->api_key);
    free(s->ids);
    free(s->priority);
    free(s->record);
}

/* Returns owned: the parts, which stand in `text`; NULL without memory or any. */
static char **split(char *text, const char *separator, size_t *count)
{
    char **parts = calloc(strlen(text) + 1, sizeof *parts); /* no more parts than bytes */
    char *next = NULL;
    *count = 0;
    for (char *part = parts ? strtok_r(text, separator, &next) : NULL; part; part = strtok_r(NULL, separator, &next))
        parts[(*count)++] = part;
    if (!*count) {
        free(parts);
        parts = NULL;
    }
    return parts;
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
        ids = split(*text, "\n", count);
    if (f)
        fclose(f);
    if (!ids)
        fprintf(stderr, "muster-submit-load: --ids %s: no ids there\n", path);
    return ids;
}

/* False, and says so, when it is none. */
static bool read_priority(const char *name, int *priority)
{
    static const char *const names[] = {"", "urgent", "normal", "bulk"}; /* by muster.v1.Priority */
    for (*priority = 0; *priority < 4; ++*priority)
        if (strcmp(name, names[*priority]) == 0)
            return true;
    fprintf(stderr, "muster-submit-load: --priority %s: urgent, normal or bulk\n", name);
    return false;
}

/* NULL, and says so, when it can't be written. */
static FILE *open_record(const char *path)
{
    FILE *f = fopen(path, "we");
    if (!f)
        fprintf(stderr, "muster-submit-load: --record %s: %s\n", path, strerror(errno));
    return f;
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
                             .connections = (int)s->connections,
                             .streams = (int)s->streams,
                             .rate = s->rate,
                             .warmup_ms = s->warmup_ms,
                             .measure_ms = s->measure_ms};
    char *text = NULL;
    char **keys = split(s->api_key, ",", &o.api_key_count), **ids = keys ? read_ids(s->ids, &text, &o.id_count) : NULL;
    int status = 2;

    if (!keys)
        fprintf(stderr, "muster-submit-load: --api-key: no key there\n");
    o.api_keys = keys;
    o.ids = ids;
    if (ids && read_priority(s->priority, &o.priority) && (!s->record || (o.record = open_record(s->record)))) {
        status = 1;
        if (sodium_init() >= 0 && (s->plaintext || (o.tls = tls_new(&tls))))
            status = measure(&o);
    }
    if (o.record && fclose(o.record) != 0) {
        fprintf(stderr, "muster-submit-load: --record %s: %s\n", s->record, strerror(errno));
        status = 1;
    }
    tls_free(&o.tls);
    free(ids);
    free(keys);
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
