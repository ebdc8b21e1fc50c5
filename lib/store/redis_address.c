#include "lib/store/redis_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"

#define DEFAULT_PORT 6379

void redis_address_free(struct redis_address *a)
{
    free(a->host);
    free(a->path);
    free(a->user);
    free(a->password);
    *a = (struct redis_address){0};
}

/* A number of digits only, at most `max`; -1 when it is none. */
static int number(const char *s, int max)
{
    char *end;
    if (*s < '0' || *s > '9')
        return -1;
    long v = strtol(s, &end, 10);
    return *end || v > max ? -1 : (int)v;
}

static bool parse_unix(struct redis_address *a, const char *rest)
{
    const char *query = strchr(rest, '?');
    a->path = query ? strndup(rest, (size_t)(query - rest)) : strdup(rest);
    if (query && strncmp(query, "?db=", 4) == 0)
        a->db = number(query + 4, 65535);
    else if (query)
        return false;
    return a->path && *a->path && a->db >= 0;
}

/* "user:password@", "password@" or ":password@"; characters that mean something in a url are not decoded. */
static bool parse_login(struct redis_address *a, const char *s, size_t n)
{
    const char *colon = memchr(s, ':', n);
    size_t user = colon ? (size_t)(colon - s) : 0;
    const char *password = colon ? colon + 1 : s;
    if (user && !(a->user = strndup(s, user)))
        return false;
    return (a->password = strndup(password, n - (size_t)(password - s))) != NULL;
}

static bool parse_host(struct redis_address *a, const char *s)
{
    size_t n = strcspn(s, "/");
    const char *slash = s[n] ? s + n + 1 : NULL;
    char *host = strndup(s, n);
    if (!host)
        return false;
    a->host = host;
    char *colon = strrchr(host, ':'), *bracket = strrchr(host, ']');
    a->port = DEFAULT_PORT;
    if (colon && colon > bracket) {
        a->port = number(colon + 1, 65535);
        *colon = 0;
    }
    if (*host == '[' && bracket) { /* an IPv6 address */
        *bracket = 0;
        memmove(host, host + 1, strlen(host));
    }
    a->db = slash && *slash ? number(slash, 65535) : 0;
    return *host && a->port > 0 && a->db >= 0;
}

static bool parse(struct redis_address *a, const char *url)
{
    if (strncmp(url, "unix://", 7) == 0)
        return parse_unix(a, url + 7);
    if (strncmp(url, "redis://", 8) != 0)
        return false;
    const char *rest = url + 8, *at = strrchr(rest, '@');
    if (at && !parse_login(a, rest, (size_t)(at - rest)))
        return false;
    return parse_host(a, at ? at + 1 : rest);
}

bool redis_address_parse(struct redis_address *a, const char *url)
{
    *a = (struct redis_address){0};
    if (parse(a, url))
        return true;
    redis_address_free(a);
    /* Not the url itself: it may hold a password. */
    log_error("redis_url_invalid", "expected=%s",
              log_quote("redis://[user:password@]host:port[/db] or unix:///path[?db=n]"));
    return false;
}
