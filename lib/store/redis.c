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
#define READER_KEEPS  (1024 * 1024) /* bytes of the reader's memory that are not given back when it is empty */

#define SCRIPT_ARGS_MAX 61

/* A command that waits for its reply. The bytes of the request stay in `out` until then, so that a script which Redis
 * does not know can be sent again. */
struct pending {
    redis_done_fn *done; /* NULL: nobody asks */
    void *arg;
    struct redis_script *script; /* NULL for a plain command */
    uint32_t size;               /* bytes of the request */
    bool handshake;              /* AUTH, SELECT, SCRIPT LOAD: sent by us */
    bool loads;                  /* SCRIPT LOAD of `script` */
    bool again;                  /* has been sent again already */
};

struct failure {
    redis_done_fn *done;
    void *arg;
    enum err err;
};

struct redis {
    struct ev_loop *loop;
    struct redis_address address;
    struct redis_scripts scripts;
    redisContext *c; /* NULL when down */
    bool connected, up;
    double backoff;
    ev_io io;
    ev_timer timer;     /* next attempt, or limit of the attempt */
    ev_prepare flusher; /* writes what the turn has collected */
    ev_timer soon;      /* delivers failures */
    struct buf out;     /* requests without reply: the first `sent` bytes are written */
    size_t sent;
    struct pending *ring; /* of `ring_room`, a power of two */
    size_t ring_first, ring_count, ring_room;
    struct failure *failures;
    size_t failure_count, failure_room;
    void (*change)(void *arg, bool up);
    void *change_arg;
    char *channel; /* not NULL: a subscription */
    void (*message)(void *arg, struct slice message);
    void *message_arg;
    int depth;
    bool dead;
};

/* --- the pieces: ring of pending commands, failures ----------------------------------------------------------------
 */

static bool ring_push(struct redis *redis, struct pending p)
{
    if (redis->ring_count == redis->ring_room) {
        size_t room = redis->ring_room ? redis->ring_room * 2 : 256;
        struct pending *ring = malloc(room * sizeof *ring);
        if (!ring)
            return false;
        for (size_t i = 0; i < redis->ring_count; i++)
            ring[i] = redis->ring[(redis->ring_first + i) & (redis->ring_room - 1)];
        free(redis->ring);
        redis->ring = ring;
        redis->ring_room = room;
        redis->ring_first = 0;
    }
    redis->ring[(redis->ring_first + redis->ring_count++) & (redis->ring_room - 1)] = p;
    return true;
}

static struct pending ring_pop(struct redis *redis)
{
    struct pending p = redis->ring[redis->ring_first];
    redis->ring_first = (redis->ring_first + 1) & (redis->ring_room - 1);
    redis->ring_count--;
    return p;
}

/* Answers with the next turn. */
static void fail_soon(struct redis *redis, redis_done_fn *done, void *arg, enum err err)
{
    if (!done)
        return;
    if (redis->failure_count == redis->failure_room) {
        size_t room = redis->failure_room ? redis->failure_room * 2 : 64;
        struct failure *more = realloc(redis->failures, room * sizeof *more);
        if (!more) {
            /* A callback that never comes would hang its owner for ever. */
            log_error("out_of_memory", "where=redis");
            abort();
        }
        redis->failures = more;
        redis->failure_room = room;
    }
    redis->failures[redis->failure_count++] = (struct failure){done, arg, err};
    if (!redis->dead && !ev_is_active(&redis->soon)) {
        ev_timer_set(&redis->soon, 0., 0.);
        ev_timer_start(redis->loop, &redis->soon);
    }
}

static void destroy(struct redis *redis)
{
    redis_address_free(&redis->address);
    redis_scripts_free(&redis->scripts);
    buf_free(&redis->out);
    free(redis->ring);
    free(redis->failures);
    free(redis->channel);
    free(redis);
}

static void enter(struct redis *redis)
{
    redis->depth++;
}

/* False when it was freed meanwhile. */
static bool leave(struct redis *redis)
{
    bool alive = !redis->dead;
    if (--redis->depth == 0 && !alive)
        destroy(redis);
    return alive;
}

static void on_soon(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct redis *redis = container_of(w, struct redis, soon);
    struct failure *now = redis->failures;
    size_t n = redis->failure_count;
    redis->failures = NULL;
    redis->failure_count = redis->failure_room = 0;
    enter(redis);
    for (size_t i = 0; i < n; i++)
        now[i].done(now[i].arg, redis->dead ? ERR_CLOSED : now[i].err, NULL);
    leave(redis);
    free(now);
}

/* --- connection ----------------------------------------------------------------------------------------------------
 */

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
        struct pending p = ring_pop(redis);
        fail_soon(redis, p.done, p.arg, ERR_UNAVAILABLE);
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
    (void)loop;
    (void)revents;
    struct redis *redis = container_of(w, struct redis, timer);
    enter(redis);
    if (redis->c)
        lost(redis, "connecting takes too long");
    else
        connect_now(redis);
    leave(redis);
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
    enter(redis);
    flush(redis);
    leave(redis);
}

/* --- sending -------------------------------------------------------------------------------------------------------
 */

static uint8_t *put_number(uint8_t *p, char type, size_t v)
{
    uint8_t digits[20];
    int n = 0;
    *p++ = (uint8_t)type;
    do
        digits[n++] = (uint8_t)('0' + v % 10);
    while ((v /= 10));
    while (n > 0)
        *p++ = digits[--n];
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

void redis_put_command(struct buf *out, int argc, const struct slice *argv)
{
    size_t size = 32;
    for (int i = 0; i < argc; i++)
        size += argv[i].len + 32;
    uint8_t *start = buf_reserve(out, size), *p = start;
    if (!p)
        return;
    p = put_number(p, '*', (size_t)argc);
    for (int i = 0; i < argc; i++) {
        p = put_number(p, '$', argv[i].len);
        if (argv[i].len)
            memcpy(p, argv[i].data, argv[i].len);
        p += argv[i].len;
        *p++ = '\r';
        *p++ = '\n';
    }
    buf_commit(out, (size_t)(p - start));
}

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
static void submit(struct redis *redis, struct pending p, int argc, const struct slice *argv)
{
    if (!redis->connected) { /* lost a moment ago, within this call */
        fail_soon(redis, p.done, p.arg, ERR_UNAVAILABLE);
        return;
    }
    size_t before = buf_len(&redis->out);
    redis_put_command(&redis->out, argc, argv);
    p.size = (uint32_t)(buf_len(&redis->out) - before);
    if (redis->out.failed || !ring_push(redis, p)) {
        fail_soon(redis, p.done, p.arg, ERR_NOMEM);
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
        fail_soon(redis, done, arg, err);
    else
        submit(redis, (struct pending){.done = done, .arg = arg}, argc, argv);
}

void redis_script(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                  redis_done_fn *done, void *arg)
{
    struct redis_script *s = redis_scripts_find(&redis->scripts, script);
    assert(s && !redis->channel && argc <= SCRIPT_ARGS_MAX);
    enum err err = may_send(redis);
    if (err) {
        fail_soon(redis, done, arg, err);
        return;
    }
    struct slice all[SCRIPT_ARGS_MAX + 3];
    char count[16];
    snprintf(count, sizeof count, "%d", keys);
    all[0] = text("EVALSHA");
    all[1] = (struct slice){(const uint8_t *)s->hash, SCRIPT_HASH};
    all[2] = text(count);
    memcpy(all + 3, argv, (size_t)argc * sizeof *argv);
    submit(redis, (struct pending){.done = done, .arg = arg, .script = s}, argc + 3, all);
}

static void handshake(struct redis *redis, struct pending p, int argc, const struct slice *argv)
{
    p.handshake = true;
    submit(redis, p, argc, argv);
}

static void load_script(struct redis *redis, struct redis_script *s)
{
    struct slice argv[] = {text("SCRIPT"), text("LOAD"), buf_slice(&s->text)};
    s->loading = true;
    handshake(redis, (struct pending){.script = s, .loads = true}, 3, argv);
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
    redis->c->reader->maxbuf = READER_KEEPS;
    if (!a->path)
        redisEnableKeepAlive(redis->c);
    watch(redis, EV_READ);
    if (a->password) {
        struct slice auth[3] = {text("AUTH"), text(a->user ? a->user : a->password), text(a->password)};
        handshake(redis, (struct pending){0}, a->user ? 3 : 2, auth);
    }
    if (a->db) {
        char db[16];
        snprintf(db, sizeof db, "%d", a->db);
        handshake(redis, (struct pending){0}, 2, (struct slice[]){text("SELECT"), text(db)});
    }
    if (redis->channel)
        handshake(redis, (struct pending){0}, 2, (struct slice[]){text("SUBSCRIBE"), text(redis->channel)});
    for (int i = 0; i < redis->scripts.count && !redis->channel; i++)
        load_script(redis, &redis->scripts.v[i]);
}

/* --- replies -------------------------------------------------------------------------------------------------------
 */

static bool starts_with(const redisReply *reply, const char *s)
{
    return reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, s, strlen(s)) == 0;
}

/* Sends a script's request again behind its SCRIPT LOAD; requests behind it that fail likewise follow in their order.
 */
static void send_again(struct redis *redis, struct pending p, const uint8_t *request)
{
    uint8_t *copy = malloc(p.size);
    if (!copy) {
        fail_soon(redis, p.done, p.arg, ERR_NOMEM);
        return;
    }
    memcpy(copy, request, p.size);
    if (!p.script->loading)
        load_script(redis, p.script);
    p.again = true;
    buf_put(&redis->out, copy, p.size);
    free(copy);
    if (redis->out.failed || !ring_push(redis, p)) {
        fail_soon(redis, p.done, p.arg, ERR_NOMEM);
        lost(redis, "out of memory");
        return;
    }
    flush_later(redis);
}

/* The last reply of the greeting makes the connection one for others; LOADING means that Redis has just started. */
static void take_handshake(struct redis *redis, const struct pending *p, const redisReply *reply)
{
    if (p->loads)
        p->script->loading = false;
    if (reply->type == REDIS_REPLY_ERROR) {
        char why[200];
        snprintf(why, sizeof why, "%s", reply->str);
        lost(redis, why);
    } else if (redis->ring_count == 0 && !redis->up) {
        ev_timer_stop(redis->loop, &redis->timer);
        redis->backoff = BACKOFF_MIN;
        set_up(redis, true);
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

static void answer(const struct pending *p, const redisReply *reply)
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
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 || strcmp(reply->element[0]->str, "message") != 0)
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
    struct pending p = ring_pop(redis);
    if (redis->sent < p.size) {
        fail_soon(redis, p.done, p.arg, ERR_UNAVAILABLE);
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
        if (redisReaderFeed(redis->c->reader, room, (size_t)n) != REDIS_OK) {
            lost(redis, "out of memory");
            return;
        }
        take_replies(redis);
        if ((size_t)n < sizeof room)
            return;
    }
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    struct redis *redis = container_of(w, struct redis, io);
    enter(redis);
    if (!redis->connected) {
        greet(redis);
    } else {
        if (revents & EV_READ)
            read_step(redis);
        if (revents & EV_WRITE && !redis->dead)
            flush(redis);
    }
    leave(redis);
}

/* --- life ----------------------------------------------------------------------------------------------------------
 */

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
    if (!redis_scripts_make(&redis->scripts)) {
        destroy(redis);
        return NULL;
    }
    redis->loop = loop;
    redis->backoff = BACKOFF_MIN;
    ev_init(&redis->io, on_io);
    ev_init(&redis->timer, on_timer);
    ev_init(&redis->soon, on_soon);
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
    enter(redis);
    redis->dead = true;
    lost(redis, "closing");
    ev_timer_stop(redis->loop, &redis->timer);
    ev_timer_stop(redis->loop, &redis->soon);
    ev_prepare_stop(redis->loop, &redis->flusher);
    for (size_t i = 0; i < redis->failure_count; i++)
        redis->failures[i].done(redis->failures[i].arg, ERR_CLOSED, NULL);
    leave(redis);
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
