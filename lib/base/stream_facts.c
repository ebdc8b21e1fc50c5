/* Settings of a stream, and what is to be known of it. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lib/base/stream.h"
#include "lib/base/stream_internal.h"

void stream_set_handler(struct stream *s, const struct stream_handler *handler, void *arg)
{
    s->handler = handler;
    s->io.data = arg;
}

bool stream_silent(const struct stream *s)
{
    int unread = 0;
    if (s->partial)
        return true;
    return !s->queued && !s->in && (ioctl(s->io.fd, FIONREAD, &unread) < 0 || unread == 0);
}

const struct stream_stats *stream_hub_stats(const struct stream_hub *hub)
{
    return &hub->stats;
}

const char *stream_peer(const struct stream *s)
{
    struct sockaddr_storage a = {.ss_family = AF_UNSPEC}; /* of unix sockets nothing may be told */
    socklen_t len = sizeof a;
    char host[INET6_ADDRSTRLEN], *text = s->hub->peer_text;
    size_t size = sizeof s->hub->peer_text;
    if (s->state == STREAM_CLOSED || getpeername(s->io.fd, (struct sockaddr *)&a, &len) < 0) {
        snprintf(text, size, "unknown");
    } else if (a.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&a;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(text, size, "%s:%d", host, ntohs(in->sin_port));
    } else if (a.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        snprintf(text, size, "[%s]:%d", host, ntohs(in6->sin6_port));
    } else {
        snprintf(text, size, "unix");
    }
    return text;
}

const char *stream_alpn(const struct stream *s)
{
    struct slice name = s->alpn ? stream_tls_alpn(s->tls->context) : (struct slice){0};
    snprintf(s->hub->alpn_text, sizeof s->hub->alpn_text, "%.*s", (int)name.len, (const char *)name.data);
    return s->hub->alpn_text;
}
