/* Lean TLS records under a stream: opened where they were received, sealed into the room all connections share, one
 * send a turn. The handshake is OpenSSL's (stream_tls.c). */
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/stream_internal.h"

/* That the peer may have gone already shows at the next write or read. */
static void send_alert(struct stream *s, uint8_t description)
{
    struct slice alert = tls_channel_alert(s->tls->lean, description);
    if (alert.len > 0)
        (void)!stream_send_records(s, alert.data, alert.len);
}

static void notify_close(struct stream *s)
{
    send_alert(s, TLS_ALERT_CLOSE_NOTIFY);
}

/* The peer has closed its side, or broken the rules: tells it, and closes. */
static void end(struct stream *s, enum tls_outcome outcome, const struct tls_received *r)
{
    if (outcome == TLS_DONE) {
        notify_close(s);
        stream_fail(s, ERR_CLOSED);
        return;
    }
    log_debug("tls_failed", "peer=%s alert=%u from=%s", stream_peer(s), r->alert, r->alert_came ? "peer" : "us");
    if (!r->alert_came)
        send_alert(s, r->alert);
    stream_fail(s, ERR_PROTOCOL);
}

static void receive(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    uint8_t *data = hub->received + (hub->raw.data - hub->received);
    size_t len = hub->raw.len;
    struct tls_received r;
    hub->raw.len = 0;
    if (s->tls->part) {
        struct slice part = buf_slice(s->tls->part);
        memcpy(hub->plain, part.data, part.len);
        memcpy(hub->plain + part.len, data, len);
        data = hub->plain;
        len += part.len;
        stream_return_buf(hub, &s->tls->part);
    }
    enum tls_outcome outcome = tls_channel_open(s->tls->lean, data, len, &r);
    if (outcome == TLS_MORE && r.used < len && !stream_append(hub, &s->tls->part, data + r.used, len - r.used)) {
        stream_fail(s, ERR_NOMEM);
        return;
    }
    if (r.len > 0)
        stream_deliver(s, r.data, r.len);
    if (outcome != TLS_MORE && s->state != STREAM_CLOSED)
        end(s, outcome, &r);
}

static bool flush(struct stream *s)
{
    size_t budget = STREAM_FLUSH_MAX, taken;
    while (s->out && !s->tls->wire && budget > 0) {
        struct slice sealed = tls_channel_seal(s->tls->lean, buf_head(s->out), buf_len(s->out), &taken);
        if (sealed.len == 0 || !stream_send_records(s, sealed.data, sealed.len))
            return false;
        buf_consume(s->out, taken);
        if (buf_len(s->out) == 0)
            stream_return_buf(s->hub, &s->out);
        budget -= taken < budget ? taken : budget;
    }
    return true;
}

static void free_channel(struct stream *s)
{
    tls_channel_free(&s->tls->lean);
}

const struct stream_records stream_lean_records = {receive, flush, notify_close, free_channel};
