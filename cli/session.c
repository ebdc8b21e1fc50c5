#include "cli/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/visible.h"
#include "lib/base/log.h"
#include "lib/base/utf8.h"

/* "127.0.0.1" of "127.0.0.1:7443", "::1" of "[::1]:7443"; NULL for a unix socket. Returns owned. */
static char *host_of(const char *target)
{
    const char *colon = strrchr(target, ':');

    if (!colon || strncmp(target, "unix:", 5) == 0)
        return NULL;
    if (target[0] == '[' && colon > target + 1 && colon[-1] == ']')
        return strndup(target + 1, (size_t)(colon - target - 2));
    return strndup(target, (size_t)(colon - target));
}

static enum err make_tls(struct session *s)
{
    char *host = host_of(s->common->target);
    const struct tls_options options = {.ca_file = s->common->ca, .alpn = "h2", .server_name = host};

    s->tls = tls_new(&options);
    free(host);
    return s->tls ? ERR_OK : ERR_INVALID;
}

enum err session_open(struct session *s, const struct common *common)
{
    enum log_level level;

    *s = (struct session){.common = common};
    if (log_level_parse(common->log_level, &level) != 0) {
        fprintf(stderr, "muster: --log-level %s: is not debug, info, warn or error\n", common->log_level);
        return ERR_INVALID;
    }
    log_init("muster", level);
    if (!common->plaintext && make_tls(s) != ERR_OK)
        return ERR_INVALID;
    s->loop = ev_default_loop(EVFLAG_AUTO);
    s->hub = s->loop ? stream_hub_new(s->loop) : NULL;
    s->client = s->hub ? grpc_client_new(s->hub, common->target, s->tls) : NULL;
    if (!s->client) {
        fprintf(stderr, "muster: --target %s: is not host:port or unix:/path\n", common->target);
        session_close(s);
        return ERR_INVALID;
    }
    if (common->api_key) {
        char bearer[256];
        snprintf(bearer, sizeof bearer, "Bearer %s", common->api_key);
        grpc_client_metadata(s->client, "authorization", bearer);
    }
    return ERR_OK;
}

void session_close(struct session *s)
{
    grpc_client_free(&s->client);
    stream_hub_free(&s->hub);
    tls_free(&s->tls);
}

ProtobufCMessage *session_try(struct session *s, const char *method, const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *response, struct status *status)
{
    char path[128];

    snprintf(path, sizeof path, "/muster.v1.%s", method);
    return grpc_client_unary(s->client, path, request, response, s->common->timeout_ms, status);
}

ProtobufCMessage *session_call(struct session *s, const char *method, const ProtobufCMessage *request,
                               const ProtobufCMessageDescriptor *response)
{
    struct status status = {0};
    ProtobufCMessage *answer = session_try(s, method, request, response, &status);

    if (answer && !s->common->json && !visible_message(answer)) {
        session_free_message(answer);
        answer = NULL;
        status_set(&status, STATUS_INTERNAL, NULL, "out of memory");
    }
    if (!answer)
        session_print_error(&status, s->common->json);
    return answer;
}

void session_free_message(ProtobufCMessage *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

static void on_pause_over(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)timer;
    (void)events;
    ev_break(loop, EVBREAK_ONE);
}

void session_pause(struct session *s, double seconds)
{
    ev_timer timer;

    ev_timer_init(&timer, on_pause_over, seconds, 0.);
    ev_timer_start(s->loop, &timer);
    ev_run(s->loop, 0);
    ev_timer_stop(s->loop, &timer);
}

/* Writes `text` as a JSON string. */
static void print_quoted(const char *text)
{
    struct buf out = {0};

    for (const uint8_t *p = (const uint8_t *)text; *p;) {
        size_t n = utf8_sequence(p, 4); /* the NUL ends what is cut off */
        if (*p == '"' || *p == '\\')
            buf_printf(&out, "\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f)
            buf_printf(&out, "\\u%04x", *p);
        else
            buf_put(&out, n ? (const void *)p : "\xef\xbf\xbd", n ? n : 3);
        p += n ? n : 1;
    }
    char *quoted = buf_take_str(&out);
    fputc('"', stderr);
    if (quoted)
        visible_print(stderr, quoted);
    fputc('"', stderr);
    free(quoted);
}

static void print_json(const struct status *st)
{
    fprintf(stderr, "{\"code\":\"%s\",\"reason\":", status_code_name(st->code));
    print_quoted(st->reason_text);
    fprintf(stderr, ",\"message\":");
    print_quoted(st->message);
    fprintf(stderr, ",\"fieldViolations\":[");
    for (unsigned i = 0; i < st->violation_count && i < STATUS_VIOLATIONS_MAX; i++) {
        fprintf(stderr, "%s{\"field\":", i ? "," : "");
        print_quoted(st->violations[i].field);
        fprintf(stderr, ",\"description\":");
        print_quoted(st->violations[i].description);
        fputc('}', stderr);
    }
    fprintf(stderr, "]}\n");
}

static void print_between(const char *before, const char *text, const char *behind)
{
    fputs(before, stderr);
    visible_print(stderr, text);
    fputs(behind, stderr);
}

void session_print_error(const struct status *st, bool json)
{
    if (json) {
        print_json(st);
        return;
    }
    fprintf(stderr, "muster: %s", status_code_name(st->code));
    if (st->reason_text[0])
        print_between(" (", st->reason_text, ")");
    print_between(": ", st->message[0] ? st->message : "no message", "\n");
    for (unsigned i = 0; i < st->violation_count && i < STATUS_VIOLATIONS_MAX; i++) {
        print_between("  ", st->violations[i].field, ": ");
        print_between("", st->violations[i].description, "\n");
    }
    if (st->violation_count > STATUS_VIOLATIONS_MAX)
        fprintf(stderr, "  and %u more\n", st->violation_count - STATUS_VIOLATIONS_MAX);
    if (st->retry_ms > 0)
        fprintf(stderr, "  try again in %" PRId64 " ms\n", st->retry_ms);
}
