/* Redis, asynchronous: one connection with pipelining, reconnection and scripts (hiredis on libev, RESP2).
 * Owns: struct redis. May call: lib/base, hiredis. Knows no key: see live.h. Loop rule: non-blocking. */
#ifndef MUSTER_STORE_REDIS_H
#define MUSTER_STORE_REDIS_H

#include <ev.h>
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct redis;

/* `url` is "redis://[user:password@]host:port[/db]" or "unix:///path[?db=n]". Connects in the background, again after a
 * loss with backoff 20 ms … 1 s. Returns owned; NULL with a line in the log when the url is no url. */
struct redis *redis_new(struct ev_loop *loop, const char *url);
void redis_free(struct redis **redis);
bool redis_up(const struct redis *redis);
/* Called when redis_up changes. */
void redis_on_change(struct redis *redis, void (*fn)(void *arg, bool up), void *arg);

/* What is to be said first on each connection: `fn` is called once connected, sends with redis_greeting, and ends
 * with redis_greeted; only then does the connection come up. Set it before the first turn of the loop. */
void redis_on_connect(struct redis *redis, void (*fn)(void *arg), void *arg);
/* `good` false: the connection is given up, and made again later. */
void redis_greeted(struct redis *redis, bool good);
/* How often it has connected so far; the database chosen there. */
uint64_t redis_connections(const struct redis *redis);
int redis_database(const struct redis *redis);

/* `reply` is borrowed, NULL unless ERR_OK. ERR_UNAVAILABLE: away, or lost or silent for 10 s before the answer (it may
 * have been done);
 * ERR_INVALID: Redis answered an error (logged); ERR_LIMIT: more than 100,000 commands under way. */
typedef void redis_done_fn(void *arg, enum err err, const redisReply *reply);
/* Sends a command; copies. `done` may be NULL. Comes from the loop, never from inside this call, exactly once. */
void redis_command(struct redis *redis, int argc, const struct slice *argv, redis_done_fn *done, void *arg);
/* Runs a script of schema/redis by file name without ".lua" by its hash; loads it when Redis does not know it. */
void redis_script(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                  redis_done_fn *done, void *arg);

/* Reads once, now, what has come, as the loop would in its turn: callbacks of commands come from inside this call. */
void redis_receive(struct redis *redis);

/* The same as redis_command and redis_script before the connection is up; `script` NULL: a plain command, without
 * `keys`. */
void redis_greeting(struct redis *redis, const char *script, int keys, int argc, const struct slice *argv,
                    redis_done_fn *done, void *arg);

/* Turns this connection into one that only listens to `channel`: `fn` is called for each message, again after a
 * reconnect; no commands may be sent on it. */
void redis_subscribe(struct redis *redis, const char *channel, void (*fn)(void *arg, struct slice message), void *arg);

#endif
