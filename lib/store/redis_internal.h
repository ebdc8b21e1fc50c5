/* Structs shared by the files of lib/store/redis*.c; nobody else includes this.
 * Owns: the layout of the connection. May call: as redis.h. Loop rule: as redis.h. */
#ifndef MUSTER_STORE_REDIS_INTERNAL_H
#define MUSTER_STORE_REDIS_INTERNAL_H

#include "lib/store/redis.h"

#define SCRIPT_HASH 40 /* SHA-1 in hex */

struct redis_address {
    char *host; /* NULL for a unix socket */
    char *path;
    int port, db;
    char *user, *password; /* NULL for none */
};
/* False, with a line in the log, when `url` is none. */
MUST_CHECK bool redis_address_parse(struct redis_address *a, const char *url);
void redis_address_free(struct redis_address *a);

struct redis_script {
    const char *name; /* borrowed; without ".lua" */
    size_t name_len;
    struct buf text; /* what comes before all scripts, then the file */
    char hash[SCRIPT_HASH + 1];
    bool loading; /* a SCRIPT LOAD is under way */
};
struct redis_scripts {
    struct redis_script *v;
    int count;
};
/* Makes the texts of schema/redis and their hashes. */
MUST_CHECK bool redis_scripts_make(struct redis_scripts *s);
void redis_scripts_free(struct redis_scripts *s);
struct redis_script *redis_scripts_find(const struct redis_scripts *s, const char *name);

/* A command that waits for its reply. The bytes of the request stay in `out` until then, so that a script which Redis
 * does not know can be sent again. */
struct redis_pending {
    redis_done_fn *done; /* NULL: nobody asks */
    void *arg;
    struct redis_script *script; /* NULL for a plain command */
    uint32_t size;               /* bytes of the request */
    bool handshake;              /* AUTH, SELECT, SCRIPT LOAD: sent by us */
    bool loads;                  /* SCRIPT LOAD of `script` */
    bool again;                  /* has been sent again already */
};

struct redis_failure {
    redis_done_fn *done;
    void *arg;
    enum err err;
};

struct redis {
    struct ev_loop *loop;
    struct redis_address address;
    struct redis_scripts scripts;
    redisContext *c;                              /* NULL when down */
    redisReplyObjectFunctions reads, bound_reads; /* hiredis' own, and those its reader has */
    bool connected, up;
    double backoff, heard;
    ev_io io;
    ev_timer timer;     /* next attempt, limit of the attempt, or look for an answer that is due */
    ev_prepare flusher; /* writes what the turn has collected */
    ev_timer soon;      /* delivers failures */
    struct buf out;     /* requests without reply: the first `sent` bytes are written */
    size_t sent;
    struct redis_pending *ring; /* of `ring_room`, a power of two */
    size_t ring_first, ring_count, ring_room;
    struct redis_failure *failures;
    size_t failure_first, failure_count, failure_room;
    uint64_t connections;     /* so far */
    void (*greet)(void *arg); /* NULL: up at once */
    void *greet_arg;
    void (*change)(void *arg, bool up);
    void *change_arg;
    char *channel; /* not NULL: a subscription */
    void (*message)(void *arg, struct slice message);
    void *message_arg;
    int depth;
    bool dead;
};

/* Places at the end and at the front of the ring of commands under way. */
MUST_CHECK bool redis_ring_push(struct redis *redis, struct redis_pending p);
struct redis_pending redis_ring_pop(struct redis *redis);
/* Answers with the next turn; `done` may be NULL. redis_on_soon is that turn. */
void redis_fail_soon(struct redis *redis, redis_done_fn *done, void *arg, enum err err);
/* Answers now, with ERR_CLOSED: it is being freed. */
void redis_fail_all(struct redis *redis);
/* At the beginning: room to refuse some when there is no memory. */
MUST_CHECK bool redis_failures_make(struct redis *redis);
void redis_on_soon(struct ev_loop *loop, ev_timer *w, int revents);
/* Around everything that may call back: leave frees what was freed meanwhile, and then returns false. */
void redis_enter(struct redis *redis);
bool redis_leave(struct redis *redis);
/* Frees the memory; everything is stopped and answered. */
void redis_destroy(struct redis *redis);

/* Appends a command as an array of bulk strings (RESP2). */
void redis_put_command(struct buf *out, int argc, const struct slice *argv);

#endif
