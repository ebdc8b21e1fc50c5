#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/chaos/chaos.h"
#include "cli/chaos/proxy.h"

/* The proxy answers at once, unless the machine is very busy. */
#define ANSWER_S 20

/* Sends a packet and reads its answer; false when there is none or it is "no". */
static bool ask(struct chaos *c, const char *packet, char answer[PROXY_PACKET_MAX])
{
    const struct timeval patience = {.tv_sec = ANSWER_S};
    ssize_t n = -1;

    setsockopt(c->proxy_socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (send(c->proxy_socket, packet, strlen(packet), MSG_NOSIGNAL) >= 0)
        do /* children end at any time, and their signals interrupt */
            n = recv(c->proxy_socket, answer, PROXY_PACKET_MAX - 1, 0);
        while (n < 0 && errno == EINTR);
    answer[n > 0 ? n : 0] = '\0';
    if (strncmp(answer, "ok", 2) == 0)
        return true;
    fprintf(stderr, "muster chaos: the proxy says '%s' to '%s'\n", answer, packet);
    return false;
}

bool chaos_network_start(struct chaos *c)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char path[DEV_PATH_BYTES], program[DEV_PATH_BYTES], log[DEV_PATH_BYTES], seed[24];
    struct dev_process *p = &c->proxy;

    if (!dev_path(path, c->dev.run, "proxy") || !dev_path(program, c->dev.programs, "muster") ||
        !dev_path(log, c->dev.data, "log"))
        return false;
    snprintf(seed, sizeof seed, "%lld", (long long)c->options.seed);
    dev_process_init(p, &c->dev.group, log, "proxy", 0);
    dev_process_args(p, program, "chaos", "proxy", "--control", path, "--seed", seed, NULL);
    if (!dev_process_start(p) || !dev_process_wait_ready(p, 60))
        return false;
    snprintf(a.sun_path, sizeof a.sun_path, "%.100s", path);
    c->proxy_socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (c->proxy_socket >= 0 && connect(c->proxy_socket, (struct sockaddr *)&a, sizeof a) == 0)
        return true;
    fprintf(stderr, "muster chaos: %s: %s\n", path, strerror(errno));
    return false;
}

const char *chaos_route_add(struct chaos *c, const char *name, const char *target)
{
    struct chaos_route *r = &c->routes[c->route_count];
    char packet[PROXY_PACKET_MAX], answer[PROXY_PACKET_MAX];

    if (c->route_count == CHAOS_ROUTES_MAX)
        return NULL;
    snprintf(packet, sizeof packet, "add %s %s", name, target);
    if (!ask(c, packet, answer))
        return NULL;
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->listen, sizeof r->listen, "%.60s", answer + 3);
    c->route_count++;
    return r->listen;
}

bool chaos_route_tell(struct chaos *c, const char *name, const char *verb, const char *value)
{
    char packet[PROXY_PACKET_MAX], answer[PROXY_PACKET_MAX];

    snprintf(packet, sizeof packet, "%s %s %s", verb, name, value);
    return ask(c, packet, answer);
}
