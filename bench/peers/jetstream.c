/* NATS JetStream by its wire protocol (docs.nats.io, "Client Protocol", "JetStream API"): publish with
 * acknowledgements, a pull consumer with explicit acks, a stream in files that forgets what is acknowledged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peers/run.h"
#include "bench/peers/wire.h"

/* As many unacknowledged as a worker may hold. */
#define PENDING_MAX 20000

/* Retention "workqueue": gone once acknowledged. */
static const char STREAM[] =
    "{\"name\":\"JOBS\",\"subjects\":[\"jobs\"],\"storage\":\"file\",\"retention\":\"workqueue\",\"num_replicas\":1}";

struct message {
    char reply[128];
    struct slice data;
};

static void publish(struct wire *w, const char *subject, const char *reply, const void *data, size_t len)
{
    buf_printf(&w->out, "PUB %s %s %zu\r\n", subject, reply, len);
    buf_put(&w->out, data, len);
    buf_put(&w->out, "\r\n", 2);
}

/* Splits "MSG subject sid [reply] bytes" (or HMSG, whose headers are a status from the server); bytes of what follows.
 */
static size_t parse(struct slice line, struct message *m)
{
    char text[512], *word[6] = {NULL}, *save = NULL;
    int n = 0;

    if (line.len >= sizeof text)
        die("NATS: a line of %zu bytes", line.len);
    snprintf(text, sizeof text, "%.*s", (int)line.len, line.data);
    for (char *p = strtok_r(text, " ", &save); p && n < 6; p = strtok_r(NULL, " ", &save))
        word[n++] = p;
    if (n < 4 || strcmp(word[0], "MSG") != 0)
        die("NATS: %.*s", (int)line.len, line.data);
    snprintf(m->reply, sizeof m->reply, "%s", n == 5 ? word[3] : "");
    return (size_t)atol(word[n - 1]);
}

/* The next message, if it is here; borrowed until the next turn. */
static bool next(struct wire *w, struct message *m)
{
    size_t start = w->in.start;
    struct slice line;

    while (wire_line(w, &line)) {
        if (slice_begins(line, "PING")) {
            buf_put_str(&w->out, "PONG\r\n");
        } else if (slice_begins(line, "INFO ") || slice_begins(line, "PONG")) {
            continue;
        } else {
            size_t len = parse(line, m);
            if (buf_len(&w->in) < len + 2) {
                w->in.start = start; /* looked at again when there is more */
                return false;
            }
            m->data = (struct slice){buf_head(&w->in), len};
            w->in.start += len + 2;
            return true;
        }
        start = w->in.start;
    }
    return false;
}

static struct message wait_next(struct wire *w)
{
    struct message m = {0};

    while (!next(w, &m))
        wire_turn(w);
    return m;
}

static bool has(struct slice s, const char *word)
{
    return memmem(s.data, s.len, word, strlen(word)) != NULL;
}

/* Asks JetStream for something and waits; the answer is borrowed until the next turn. */
static struct slice ask(struct wire *w, const char *subject, const char *body)
{
    publish(w, subject, "inbox.api", body, strlen(body));
    return wait_next(w).data;
}

/* The same for what must not fail. */
static struct slice request(struct wire *w, const char *subject, const char *body)
{
    struct slice answer = ask(w, subject, body);

    if (has(answer, "\"error\""))
        die("JetStream: %s: %.*s", subject, (int)answer.len, answer.data);
    return answer;
}

static void connect_to(struct wire *w, const char *at)
{
    wire_open(w, at);
    buf_put_str(&w->out,
                "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\",\"protocol\":1}\r\n"
                "SUB inbox.* 1\r\n");
}

void jetstream_enqueue(struct run *r)
{
    struct wire w;
    struct message m;
    uint32_t sent = 0, accepted = 0;
    char job[JOB_BYTES];

    connect_to(&w, r->at);
    ask(&w, "$JS.API.STREAM.DELETE.JOBS", ""); /* that of an earlier run, if there was one */
    request(&w, "$JS.API.STREAM.CREATE.JOBS", STREAM);
    run_begin(r);
    while (accepted < r->jobs) {
        for (; sent < r->jobs && sent - accepted < r->window; sent++) {
            job_write(job, sent);
            publish(&w, "jobs", "inbox.put", job, JOB_BYTES);
        }
        wire_turn(&w);
        for (; next(&w, &m); accepted++)
            if (!has(m.data, "\"seq\""))
                die("JetStream: %.*s", (int)m.data.len, m.data.data);
    }
    wire_close(&w);
}

static void make_consumer(struct wire *w)
{
    char body[256];

    snprintf(body, sizeof body,
             "{\"stream_name\":\"JOBS\",\"config\":{\"durable_name\":\"W\",\"ack_policy\":\"explicit\","
             "\"deliver_policy\":\"all\",\"max_ack_pending\":%d,\"ack_wait\":600000000000}}",
             PENDING_MAX);
    request(w, "$JS.API.CONSUMER.DURABLE.CREATE.JOBS.W", body);
}

/* Acks are not answered: the consumer's own count says when all have been taken in. */
static void wait_acknowledged(struct wire *w)
{
    struct slice info;

    do
        info = request(w, "$JS.API.CONSUMER.INFO.JOBS.W", "");
    while (!has(info, "\"num_ack_pending\":0,") || !has(info, "\"num_pending\":0"));
}

void jetstream_process(struct run *r)
{
    struct wire w;
    struct message m;
    uint32_t asked = 0, taken = 0;
    char pull[64];

    connect_to(&w, r->at);
    make_consumer(&w);
    snprintf(pull, sizeof pull, "{\"batch\":%u,\"expires\":600000000000}", r->batch);
    run_begin(r);
    while (taken < r->jobs) {
        for (; asked < r->jobs && asked - taken < r->window; asked += r->batch)
            publish(&w, "$JS.API.CONSUMER.MSG.NEXT.JOBS.W", "inbox.take", pull, strlen(pull));
        wire_turn(&w);
        for (; next(&w, &m); taken++) {
            run_completed(r, job_read(r, m.data.data, m.data.len));
            buf_printf(&w.out, "PUB %s 4\r\n+ACK\r\n", m.reply);
        }
    }
    wait_acknowledged(&w);
    wire_close(&w);
}
