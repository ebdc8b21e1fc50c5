/* What redis.c (connections) and redis_server.c (what happens to the server) share; for no one else.
 * Owns: the structs below. May call: as redis.h. Loop rule: as redis.h. */
#ifndef MUSTER_TESTS_SIM_REDIS_PARTS_H
#define MUSTER_TESTS_SIM_REDIS_PARTS_H

#include "lib/base/list.h"
#include "lib/store/redis.h"
#include "tests/sim/net.h"
#include "tests/sim/redis_model.h"

struct server {
    struct world *world;
    bool up;
    struct redis_model *remembered;
    struct list connections; /* struct redis */
    struct list ghosts;      /* struct rq: nobody waits for them any more */
    struct list blocked;     /* struct rq.waiting */
    struct list clients;     /* struct client */
    uint64_t client_ids;
    struct event start;
    unsigned lives;
};

/* The server's end of a connection: there as long as something of it may still arrive. */
struct client {
    struct list link;
    uint64_t id;
    char name[48];
    struct redis *redis; /* NULL: the other end has gone */
    unsigned ghosts;
};

/* A request, from the client's call to its answer. */
struct rq {
    struct list link;    /* redis->pending, redis->failed or server->ghosts */
    struct list waiting; /* server->blocked, or alone */
    struct redis *redis; /* NULL: a ghost */
    struct client *client;
    struct world *world;
    struct event event; /* its arrival, then its answer's */
    struct event timeout;
    redis_done_fn *done;
    void *arg;
    redisReply *reply;
    const char *script; /* NULL: a command */
    int keys, argc;
    bool executed;
    struct slice argv[];
};

struct redis {
    struct process *process;
    struct list link; /* server->connections */
    struct list pending, failed;
    bool up, broken, dead; /* broken: the client does not know yet */
    struct client *client; /* NULL: not connected */
    uint64_t connections;
    void (*greet)(void *arg);
    void *greet_arg;
    void (*change)(void *arg, bool up);
    void *change_arg;
    void (*message)(void *arg, struct slice text);
    void *message_arg;
    struct list messages; /* struct message under way */
    struct wire there, back;
    struct event lost, connect, soon, patience;
    int64_t backoff_us, heard_us;
};

struct message {
    struct list link;
    struct event event;
    struct redis *redis;
    size_t len;
    uint8_t text[];
};

static inline struct server *server_of(struct world *w)
{
    return (struct server *)(void *)w->redis;
}

/* Out of all lists. */
void rq_free(struct rq *q);
/* The server's end is gone; the client learns it in a moment. */
void break_connection(struct redis *redis);

#endif
