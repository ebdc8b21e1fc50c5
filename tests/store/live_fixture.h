/* What the tests of lib/store/live stand on: a Redis of their own, waiting for answers, and the answers.
 * Owns: struct fixture, the one answer under way. May call: lib/store/live, tests/store/servers. Loop rule: turns it.
 */
#ifndef MUSTER_TESTS_STORE_LIVE_FIXTURE_H
#define MUSTER_TESTS_STORE_LIVE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/store/live.h"
#include "tests/store/servers.h"

#define TENANT  7u
#define BLOCK   3u
#define BATCHES 12
#define WORKERS 4

struct fixture {
    struct servers servers;
    struct ev_loop *loop;
    struct live *live;
    unsigned seed;
};

/* The answer to one move, kept. */
struct answer {
    bool done;
    enum err err;
    int64_t value;
    size_t count;
    uint8_t bytes[8192];
    size_t len;
    struct live_routed routed[WORKERS + 1];
    struct live_attached attached[BLOCK_SLOTS];
    struct live_pending pending[BLOCK_SLOTS * BATCHES];
};
extern struct answer answer;

/* Turns the loop until *flag, at most 20 s. */
void wait_for(struct fixture *f, const bool *flag);
/* An answer to give to a move as argument; get waits for it. */
struct answer *expect(void);
struct answer *get(struct fixture *f);
/* Callbacks that keep the answer. */
void on_done(void *arg, enum err err);
void on_int(void *arg, enum err err, int64_t value);
void on_bytes(void *arg, enum err err, struct slice value);
void on_route(void *arg, enum err err, const struct live_routed *routed, size_t count);
void on_record(void *arg, enum err err, const uint8_t *before, const uint8_t *after, size_t count);
void on_attach(void *arg, enum err err, const struct live_attached *attached, size_t count);
/* For live_on_change: *arg is a bool. */
void on_up(void *arg, bool up);
/* Through redis-cli, as somebody else would. */
void cli(struct fixture *f, const char *command);
void flush_all(struct fixture *f);
/* For cmocka: *state is a struct fixture. */
int set_up(void **state);
int tear_down(void **state);

#endif
