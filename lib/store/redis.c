#include "lib/store/redis_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/list.h"
#include "lib/base/log.h"

#define UNDER_WAY_MAX 100000 /* commands: bounds what a Redis that has stopped can make us keep */
#define BACKOFF_MIN   0.02
#define BACKOFF_MAX   1.0
#define CONNECT_LIMIT 5.0         /* seconds */
#define WRITE_AT_ONCE (64 * 1024) /* bytes collected in a turn until they are written before its end */
#define READ_MAX      (64 * 1024) /* bytes read in one go */
#define READS_A_TURN  8
#define ANSWER_LIMIT  10.0 /* seconds without a word from a Redis that owes an answer, until it counts as lost */
#define ANSWER_LOOK   2.0
#define READER_KEEPS  (1024 * 1024) /* bytes of the reader's memory that are not given back when it is empty */

/* A set of all worker numbers has as many. A longer array is none of Redis' answers: not taken, for room for all its
 * elements is made when the first bytes come. */
#define READER_ELEMENTS_MAX 65536

#define SCRIPT_ARGS_MAX 61

/* --- connection --------------------------------------------------------------------------------------------------- */

static void set_up(struct redis *redis, bool up)
{
    if (redis->up == up)
        return;
    redis->up = up;
    if (redis->change && !redis->dead)
        redis->change(redis->change_arg, up);
}

static void watch(struct redis *redis, int events)
{
    ev_io_stop(redis->loop, &redis->io);
    ev_io_set(&redis->io, redis->c->fd, events);
    ev_io_start(redis->loop, &redis->io);
}

static void set_timer(struct redis *redis, double seconds)
{
    ev_timer_stop(redis->loop, &redis->timer);
    ev_timer_set(&redis->timer, seconds, 0.);
    ev_timer_start(redis->loop, &redis->timer);
}

static void lost(struct redis *redis, const char *why)
{
    bool was_up = redis->up;
    if (!redis->dead && (was_up || redis->backoff >= BACKOFF_MAX))
        log_warn("redis_lost", "connected=%s reason=%s", was_up ? "yes" : "no", log_quote(why));
    ev_io_stop(redis->loop, &redis->io);
    if (redis->c)
        redisFree(redis->c);
    redis->c = NULL;
    redis->connected = false;
    while (redis->ring_count > 0) {
        struct redis_pending p = redis_ring_pop(redis);
        redis_fail_soon(redis, p.done, p.arg, ERR_UNAVAILABLE);
    }
    buf_reset(&redis->out);
    redis->sent = 0;
    set_timer(redis, redis->backoff);
    redis->backoff = redis->backoff * 2 < BACKOFF_MAX ? redis->backoff * 2 : BACKOFF_MAX;
    set_up(redis, false);
}

static void connect_now(struct redis *redis)
{
    struct redis_address *a = &redis->address;
    redis->c = a->path ? redisConnectUnixNonBlock(a->path) : redisConnectNonBlock(a->host, a->port);
    if (!redis->c || redis->c->err) {
        char why[128];
        snprintf(why, sizeof why, "%s", redis->c ? redis->c->errstr : "out of memory");
        lost(redis, why);
        return;
    }
    set_timer(redis, CONNECT_LIMIT);
    watch(redis, EV_WRITE);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)revents;
    struct redis *redis = container_of(w, struct redis, timer);
    redis_enter(redis);
    if (!redis->c)
        connect_now(redis);
    else if (!redis->up)
        lost(redis, "connecting takes too long");
    else if (redis->ring_count > 0 && ev_now(loop) - redis->heard > ANSWER_LIMIT)
        lost(redis, "no answer");
    else if (redis->ring_count > 0)
        set_timer(redis, ANSWER_LOOK);
    redis_leave(redis);
}

/* Writes what is not written yet, as far as the socket takes it. */
static void flush(struct redis *redis)
{
    while (redis->connected && buf_len(&redis->out) > redis->sent) {
        ssize_t n =
            send(redis->c->fd, buf_head(&redis->out) + redis->sent, buf_len(&redis->out) - redis->sent, MSG_NOSIGNAL);
        if (n >= 0) {
            redis->sent += (size_t)n;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            break;
        lost(redis, strerror(errno));
        return;
    }
    if (!redis->connected)
        return;
    bool want = buf_len(&redis->out) > redis->sent;
    if (want != !!(redis->io.events & EV_WRITE))
        watch(redis, want ? EV_READ | EV_WRITE : EV_READ);
}

static void on_flush(struct ev_loop *loop, ev_prepare *w, int revents)
{
    (void)revents;
    struct redis *redis = container_of(w, struct redis, flusher);
    ev_prepare_stop(loop, w);
    redis_enter(redis);
    flush(redis);
    redis_leave(redis);
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static void flush_later(struct redis *redis)
{
    if (buf_len(&redis->out) - redis->sent > WRITE_AT_ONCE)
        flush(redis);
    else if (!ev_is_active(&redis->flusher))
        ev_prepare_start(redis->loop, &redis->flusher);
}

/* Appends a request and its place in the ring. */
static void submit(struct redis *redis, struct redis_pending p, int argc, const struct slice *argv)
{
    if (!redis->connected) { /* lost a moment ago, within this call */
        redis_fail_soon(redis, p.done, p.arg, ERR_UNAVAILABLE);
        return;
    }
    size_t before = buf_len(&redis->out);
    redis_put_command(&redis->out, argc, argv);
    p.size = (uint32_t)(buf_len(&redis->out) - before);
    if (redis->ring_count == 0)
        redis->heard = ev_now(redis->loop);
    if (!ev_is_active(&redis->timer))
        set_timer(redis, ANSWER_LOOK);
    if (redis->out.failed || !redis_ring_push(redis, p)) {
        redis_fail_soon(redis, p.done, p.arg, ERR_NOMEM);
        lost(redis, "out of memory");
        return;
    }
    flush_later(redis);
}

static enum err may_send(const struct redis *redis)
{
    if (redis->dead)
        return ERR_CLOSED;
    if (!redis->up)
        return ERR_UNAVAILABLE;
    return redis->ring_count >= UNDER_WAY_MAX ? ERR_LIMIT : ERR_OK;
}

void redis_command(struct redis *redis, int argc, const struct slice *argv, redis_done_fn *done, void *arg)
{
    assert(!redis->channel);
    enum err err = may_send(redis);
    if (err)
        redis_fail_soon(redis, done, arg, err);
    else
        submit(redis, (struct redis_pending){.done = done, .arg = arg}, argc, argv);
}

static void submit_script(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                          redis_done_fn *done, void *arg)
{
    struct redis_script *s = redis_scripts_find(&redis->scripts, script);
    assert(s && !redis->channel && argc <= SCRIPT_ARGS_MAX);
    struct slice all[SCRIPT_ARGS_MAX + 3];
    char count[16];
    snprintf(count, sizeof count, "%d", keys);
    all[0] = text("EVALSHA");
    all[1] = (struct slice){(const uint8_t *)s->hash, SCRIPT_HASH};
    all[2] = text(count);
    memcpy(all + 3, argv, (size_t)argc * sizeof *argv);
    submit(redis, (struct redis_pending){.done = done, .arg = arg, .script = s}, argc + 3, all);
}

void redis_script(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                  redis_done_fn *done, void *arg)
{
    enum err err = may_send(redis);
    if (err)
        redis_fail_soon(redis, done, arg, err);
    else
        submit_script(redis, script, keys, argc, argv, done, arg);
}

void redis_greeting(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                    redis_done_fn *done, void *arg)
{
    if (script)
        submit_script(redis, script, keys, argc, argv, done, arg);
    else
        submit(redis, (struct redis_pending){.done = done, .arg = arg}, argc, argv);
}

static void handshake(struct redis *redis, struct redis_pending p, int argc, const struct slice *argv)
{
    p.handshake = true;
    submit(redis, p, argc, argv);
}

static void load_script(struct redis *redis, struct redis_script *s)
{
    struct slice argv[] = {text("SCRIPT"), text("LOAD"), buf_slice(&s->text)};
    s->loading = true;
    handshake(redis, (struct redis_pending){.script = s, .loads = true}, 3, argv);
}

/* hiredis' own functions, but for arrays that are too long. */
static void *create_array(const redisReadTask *task, int elements)
{
    const struct redis *redis = task->privdata;
    return elements > READER_ELEMENTS_MAX ? NULL : redis->reads.createArray(task, elements);
}

static void bound_reader(struct redis *redis)
{
    redisReader *reader = redis->c->reader;
    redis->reads = *reader->fn;
    redis->bound_reads = redis->reads;
    redis->bound_reads.createArray = create_array;
    reader->fn = &redis->bound_reads;
    reader->privdata = redis;
    reader->maxbuf = READER_KEEPS;
}

/* The socket is connected: who we are, which database, the scripts; then the others may send. */
static void greet(struct redis *redis)
{
    struct redis_address *a = &redis->address;
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(redis->c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error) {
        lost(redis, strerror(error ? error : errno));
        return;
    }
    redis->connected = true;
    redis->connections++;
    bound_reader(redis);
    if (!a->path)
        redisEnableKeepAlive(redis->c);
    watch(redis, EV_READ);
    if (a->password) {
        struct slice auth[3] = {text("AUTH"), text(a->user ? a->user : a->password), text(a->password)};
        handshake(redis, (struct redis_pending){0}, a->user ? 3 : 2, auth);
    }
    if (a->db) {
        char db[16];
        snprintf(db, sizeof db, "%d", a->db);
        handshake(redis, (struct redis_pending){0}, 2, (struct slice[]){text("SELECT"), text(db)});
    }
    if (redis->channel)
        handshake(redis, (struct redis_pending){0}, 2, (struct slice[]){text("SUBSCRIBE"), text(redis->channel)});
    for (int i = 0; i < redis->scripts.count && !redis->channel; i++)
        load_script(redis, &redis->scripts.v[i]);
}

/* --- replies ------------------------------------------------------------------------------------------------------ */

static bool starts_with(const redisReply *reply, const char *s)
{
    return reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, s, strlen(s)) == 0;
}

/* Sends a script's request again behind its SCRIPT LOAD; requests behind it that fail likewise follow in their order.
 */
static void send_again(struct redis *redis, struct redis_pending p, const uint8_t *request)
{
    uint8_t *copy = malloc(p.size);
    if (!copy) {
        redis_fail_soon(redis, p.done, p.arg, ERR_NOMEM);
        return;
    }
    memcpy(copy, request, p.size);
    if (!p.script->loading)
        load_script(redis, p.script);
    p.again = true;
    buf_put(&redis->out, copy, p.size);
    free(copy);
    if (redis->out.failed || !redis_ring_push(redis, p)) {
        redis_fail_soon(redis, p.done, p.arg, ERR_NOMEM);
        lost(redis, "out of memory");
        return;
    }
    flush_later(redis);
}

static void come_up(struct redis *redis)
{
    ev_timer_stop(redis->loop, &redis->timer);
    redis->backoff = BACKOFF_MIN;
    set_up(redis, true);
}

void redis_greeted(struct redis *redis, bool good)
{
    if (!redis->connected || redis->dead)
        return;
    if (good)
        come_up(redis);
    else
        lost(redis, "not greeted");
}

/* The last reply of the handshake makes the connection one for others; LOADING means that Redis has just started. */
static void take_handshake(struct redis *redis, const struct redis_pending *p, const redisReply *reply)
{
    if (p->loads) {
        assert(p->script);
        p->script->loading = false;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        char why[200];
        snprintf(why, sizeof why, "%s", reply->str);
        lost(redis, why);
    } else if (redis->ring_count == 0 && !redis->up) {
        if (redis->greet)
            redis->greet(redis->greet_arg);
        else
            come_up(redis);
    }
}

/* Errors that say Redis can't serve now, not that the command is wrong. */
static bool is_away(const redisReply *reply)
{
    static const char *const words[] = {"LOADING",     "BUSY",     "MASTERDOWN", "READONLY",  "OOM",
                                        "CLUSTERDOWN", "TRYAGAIN", "MISCONF",    "NOREPLICAS"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (starts_with(reply, words[i]))
            return true;
    return false;
}

static void answer(const struct redis_pending *p, const redisReply *reply)
{
    enum err err = ERR_OK;
    if (reply->type == REDIS_REPLY_ERROR) {
        err = is_away(reply) ? ERR_UNAVAILABLE : ERR_INVALID;
        log_warn("redis_error", "script=%.*s message=%s", p->script ? (int)p->script->name_len : 1,
                 p->script ? p->script->name : "-", log_quote(reply->str));
    }
    if (p->done)
        p->done(p->arg, err, err ? NULL : reply);
}

static void take_message(struct redis *redis, const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
        return;
    for (size_t i = 0; i < 3; i++)
        if (reply->element[i]->type != REDIS_REPLY_STRING)
            return;
    if (strcmp(reply->element[0]->str, "message") != 0)
        return;
    redis->message(redis->message_arg,
                   (struct slice){(const uint8_t *)reply->element[2]->str, (size_t)reply->element[2]->len});
}

static void take_reply(struct redis *redis, const redisReply *reply)
{
    if (redis->ring_count == 0) {
        if (redis->channel && redis->up)
            take_message(redis, reply);
        else
            lost(redis, "a reply that nobody asked for");
        return;
    }
    struct redis_pending p = redis_ring_pop(redis);
    if (redis->sent < p.size) {
        redis_fail_soon(redis, p.done, p.arg, ERR_UNAVAILABLE);
        lost(redis, "a reply before its request");
        return;
    }
    if (p.script && !p.loads && !p.again && starts_with(reply, "NOSCRIPT"))
        send_again(redis, p, buf_head(&redis->out));
    else if (p.handshake)
        take_handshake(redis, &p, reply);
    else
        answer(&p, reply);
    if (!redis->connected)
        return;
    redis->sent -= p.size;
    buf_consume(&redis->out, p.size);
}

/* Takes the replies that have arrived whole. */
static void take_replies(struct redis *redis)
{
    void *reply;
    while (!redis->dead && redis->connected) {
        redisReader *reader = redis->c->reader;
        if (redisReaderGetReply(reader, &reply) != REDIS_OK) {
            char why[128];
            snprintf(why, sizeof why, "%s", reader->errstr);
            lost(redis, why);
            return;
        }
        if (!reply)
            return;
        take_reply(redis, reply);
        freeReplyObject(reply);
    }
}

static void read_step(struct redis *redis)
{
    static _Thread_local char room[READ_MAX];
    for (int i = 0; i < READS_A_TURN && !redis->dead && redis->connected; i++) {
        ssize_t n = recv(redis->c->fd, room, sizeof room, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            return;
        if (n <= 0) {
            lost(redis, n == 0 ? "closed by Redis" : strerror(errno));
            return;
        }
        redis->heard = ev_now(redis->loop);
        if (redisReaderFeed(redis->c->reader, room, (size_t)n) != REDIS_OK) {
            lost(redis, "out of memory");
            return;
        }
        take_replies(redis);
        if ((size_t)n < sizeof room)
            return;
    }
}

/* What follows from an answer does not wait until all else of the turn is done. */
static void serve(struct redis *redis, int revents)
{
    if (revents & EV_READ)
        read_step(redis);
    if (!redis->dead && (revents & EV_WRITE || ev_is_active(&redis->flusher)))
        flush(redis);
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    struct redis *redis = container_of(w, struct redis, io);
    redis_enter(redis);
    if (redis->connected)
        serve(redis, revents);
    else
        greet(redis);
    redis_leave(redis);
}

void redis_receive(struct redis *redis)
{
    if (!redis->up)
        return;
    redis_enter(redis);
    serve(redis, EV_READ);
    redis_leave(redis);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct redis *redis_new(struct ev_loop *loop, const char *url)
{
    struct redis_address address;
    if (!redis_address_parse(&address, url))
        return NULL;
    struct redis *redis = calloc(1, sizeof *redis);
    if (!redis) {
        redis_address_free(&address);
        return NULL;
    }
    redis->address = address;
    if (!redis_scripts_make(&redis->scripts) || !redis_failures_make(redis)) {
        redis_destroy(redis);
        return NULL;
    }
    redis->loop = loop;
    redis->backoff = BACKOFF_MIN;
    ev_init(&redis->io, on_io);
    ev_set_priority(&redis->io, 1); /* few answers, each for many devices: before what these say in the same turn */
    ev_init(&redis->timer, on_timer);
    ev_init(&redis->soon, redis_on_soon);
    ev_prepare_init(&redis->flusher, on_flush);
    set_timer(redis, 0.);
    return redis;
}

void redis_free(struct redis **out)
{
    struct redis *redis = *out;
    if (!redis)
        return;
    *out = NULL;
    redis_enter(redis);
    redis->dead = true;
    lost(redis, "closing");
    ev_timer_stop(redis->loop, &redis->timer);
    ev_timer_stop(redis->loop, &redis->soon);
    ev_prepare_stop(redis->loop, &redis->flusher);
    redis_fail_all(redis);
    redis_leave(redis);
}

void redis_on_connect(struct redis *redis, void (*fn)(void *arg), void *arg)
{
    redis->greet = fn;
    redis->greet_arg = arg;
}

uint64_t redis_connections(const struct redis *redis)
{
    return redis->connections;
}

int redis_database(const struct redis *redis)
{
    return redis->address.db;
}

bool redis_up(const struct redis *redis)
{
    return redis->up;
}

void redis_on_change(struct redis *redis, void (*fn)(void *arg, bool up), void *arg)
{
    redis->change = fn;
    redis->change_arg = arg;
}

void redis_subscribe(struct redis *redis, const char *channel, void (*fn)(void *arg, struct slice message), void *arg)
{
    assert(!redis->channel && redis->ring_count == 0);
    redis->channel = strdup(channel);
    if (!redis->channel)
        abort();
    redis->message = fn;
    redis->message_arg = arg;
}
