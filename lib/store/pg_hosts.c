#include "lib/store/pg_hosts.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

static unsigned count_of(const char *list)
{
    unsigned n = 1;

    for (const char *at = list; *at; at++)
        n += *at == ',';
    return n;
}

/* "c,a,b" of "a,b,c" and 2. A list of another length, such as one port for all hosts, stays. Returns owned. */
static char *rotated(const char *list, unsigned by, unsigned count)
{
    const char *cut = list;
    char *out;

    if (!list || !*list)
        return NULL;
    out = strdup(list);
    if (!out || count_of(list) != count || by == 0)
        return out;
    for (unsigned i = 0; i < by; i++)
        cut = strchr(cut, ',') + 1;
    size_t behind = strlen(cut), before = (size_t)(cut - list) - 1;
    memcpy(out, cut, behind);
    out[behind] = ',';
    memcpy(out + behind + 1, list, before);
    return out;
}

static const char *value_of(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword; options++)
        if (strcmp(options->keyword, keyword) == 0)
            return options->val;
    return NULL;
}

bool pg_hosts_from(struct pg_hosts *hosts, const char *conninfo, unsigned first)
{
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);

    *hosts = (struct pg_hosts){0};
    if (!options)
        return false;
    const char *host = value_of(options, "host"), *hostaddr = value_of(options, "hostaddr");
    unsigned count = hostaddr && *hostaddr ? count_of(hostaddr) : host && *host ? count_of(host) : 1;
    if (count > 1)
        *hosts = (struct pg_hosts){.host = rotated(host, first % count, count),
                                   .hostaddr = rotated(hostaddr, first % count, count),
                                   .port = rotated(value_of(options, "port"), first % count, count)};
    PQconninfoFree(options);
    return count > 1;
}

void pg_hosts_clear(struct pg_hosts *hosts)
{
    free(hosts->host);
    free(hosts->hostaddr);
    free(hosts->port);
    *hosts = (struct pg_hosts){0};
}
