#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/dev.h"
#include "cli/device_rows.h"
#include "lib/store/db_bootstrap.h"

#define TENANT "dev"
/* Characters of "device-0000000". */
#define ID_BYTES 24
/* A connected fleet: handshakes take up to a millisecond each on one core. */
#define FLEET_READY_S_BASE 60

static bool fail(const char *path)
{
    fprintf(stderr, "muster dev: %s: %s\n", path, strerror(errno));
    return false;
}

/* The key of an earlier run on the same data, if there is one. */
static bool read_key(struct dev *dev, const char *path)
{
    FILE *in = fopen(path, "re");
    bool ok = in && fgets(dev->api_key, sizeof dev->api_key, in) && strncmp(dev->api_key, "muster_", 7) == 0;

    if (in)
        fclose(in);
    dev->api_key[strcspn(dev->api_key, "\n")] = '\0';
    return ok;
}

static bool write_key(struct dev *dev, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return fail(path);
    bool ok = dprintf(fd, "%s\n", dev->api_key) > 0;
    return close(fd) == 0 && ok ? true : fail(path);
}

bool dev_tenant_make(struct dev *dev)
{
    char path[DEV_PATH_BYTES], error[512] = "";

    if (!dev_path(path, dev->data, "api-key"))
        return false;
    if (!read_key(dev, path)) {
        if (db_bootstrap(dev->conninfo, TENANT, "muster dev", dev->api_key, error, sizeof error) != ERR_OK) {
            fprintf(stderr, "muster dev: %s\n", error);
            return false;
        }
        if (!write_key(dev, path))
            return false;
    }
    dev->common = dev->inv->common;
    dev->common.target = dev->dispatchers[0].listen;
    dev->common.ca = dev->ca;
    dev->common.api_key = dev->api_key;
    dev->common.plaintext = false;
    return true;
}

/* A mix as a company has it: mostly telephones. Returns owned, one text block in *text. */
static struct device_row *make_rows(const char *prefix, size_t count, char **text)
{
    static const Muster__V1__Platform mix[] = {
        MUSTER__V1__PLATFORM__PLATFORM_IOS,     MUSTER__V1__PLATFORM__PLATFORM_ANDROID,
        MUSTER__V1__PLATFORM__PLATFORM_IOS,     MUSTER__V1__PLATFORM__PLATFORM_IPADOS,
        MUSTER__V1__PLATFORM__PLATFORM_ANDROID, MUSTER__V1__PLATFORM__PLATFORM_MACOS,
        MUSTER__V1__PLATFORM__PLATFORM_IOS,     MUSTER__V1__PLATFORM__PLATFORM_WINDOWS,
        MUSTER__V1__PLATFORM__PLATFORM_ANDROID, MUSTER__V1__PLATFORM__PLATFORM_TVOS,
    };
    struct device_row *rows = calloc(count, sizeof *rows);

    *text = calloc(count, ID_BYTES);
    if (!rows || !*text)
        abort();
    for (size_t i = 0; i < count; i++) {
        rows[i].id = *text + i * ID_BYTES;
        snprintf(rows[i].id, ID_BYTES, "%.12s-%07u", prefix, (unsigned)i);
        rows[i].platform = mix[i % (sizeof mix / sizeof mix[0])];
    }
    return rows;
}

static bool issue(struct session *s, const struct device_row *rows, size_t count, FILE *out)
{
    char **ids = calloc(count, sizeof *ids);
    struct device_tokens how = {.out = out};

    if (!ids)
        abort();
    for (size_t i = 0; i < count; i++)
        ids[i] = rows[i].id;
    bool ok = device_rows_tokens(s, ids, count, &how) == EXIT_DONE;
    free(ids);
    return ok;
}

bool dev_devices_register(struct dev *dev, const struct common *who, const char *prefix, size_t count, FILE *tokens)
{
    struct session s;
    char *text;

    if (session_open(&s, who) != ERR_OK)
        return false;
    s.stop = &dev->group.broken;
    struct device_row *rows = make_rows(prefix, count, &text);
    Muster__V1__ImportDevicesResponse *answer = device_rows_import(&s, rows, count, false);
    bool ok = answer && issue(&s, rows, count, tokens);
    session_free_message((ProtobufCMessage *)answer);
    session_close(&s);
    free(rows);
    free(text);
    return ok;
}

FILE *dev_credentials_open(struct dev *dev)
{
    int fd = dev_path(dev->credentials, dev->data, "credentials")
                 ? open(dev->credentials, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
                 : -1;
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

    if (!out)
        fail(dev->credentials);
    return out;
}

bool dev_devices_make(struct dev *dev)
{
    FILE *out = dev_credentials_open(dev);
    bool ok = out && dev_devices_register(dev, &dev->common, "device", (size_t)dev->options.devices, out);

    if (out && fclose(out) != 0)
        return fail(dev->credentials);
    return ok;
}

/* "127.0.0.1:1,127.0.0.1:2" of all workers; returns owned. */
static char *worker_list(const struct dev *dev)
{
    size_t size = (size_t)dev->options.workers * (DEV_ADDRESS_BYTES + 1) + 1, n = 0;
    char *out = calloc(size, 1);

    if (!out)
        abort();
    for (int i = 0; i < dev->options.workers; i++) {
        const struct dev_process *w = &dev->workers[i];
        n +=
            (size_t)snprintf(out + n, size - n, "%s%s", i ? "," : "", dev->options.plain ? w->listen_plain : w->listen);
    }
    return out;
}

bool dev_fleet_make(struct dev *dev, const char *workers)
{
    struct dev_process *p = &dev->fleet;
    char path[DEV_PATH_BYTES], log[DEV_PATH_BYTES], count[32];

    if (!dev_path(path, dev->programs, "muster-fleet") || !dev_path(log, dev->data, "log"))
        return false;
    dev_process_init(p, &dev->group, log, "fleet", 0);
    snprintf(count, sizeof count, "%" PRId64, dev->options.devices);
    dev_process_args(p, path, "--connect", workers, "--credentials", dev->credentials, "--devices", count, NULL);
    if (dev->options.plain)
        dev_process_arg(p, "--no-tls");
    else
        dev_process_args(p, "--ca", dev->ca, NULL);
    for (size_t i = 0; i < dev->options.fleet_flags.count; i++)
        dev_process_arg(p, dev->options.fleet_flags.items[i]);
    return true;
}

bool dev_fleet_start(struct dev *dev)
{
    struct dev_process *p = &dev->fleet;
    char *workers = worker_list(dev);
    bool made = dev_fleet_make(dev, workers);

    free(workers);
    return made && dev_process_start(p) &&
           dev_process_wait_ready(p, FLEET_READY_S_BASE + (double)dev->options.devices / 200);
}
