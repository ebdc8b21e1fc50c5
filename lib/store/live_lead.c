/* The fence of a leader's moves: its connection. A connection of a leader bears its epoch as a name before it may send
 * moves; who comes with a higher one has Redis close those of lower ones, which throws away what they have sent and
 * Redis has not read. Between name and closing stands the key muster:leader: whoever named itself before the newcomer
 * wrote there is seen in the list of clients, whoever comes later is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/store/live.h"
#include "lib/store/live_internal.h"

#define NAME "muster-leader-"

/* One connection's greeting. */
struct greeting {
    struct live *live;
    int64_t own;   /* number of this client */
    unsigned left; /* commands under way */
    bool failed, fenced;
};

static void say(struct greeting *g, const struct args *a, redis_done_fn *done)
{
    g->left++;
    redis_greeting(g->live->moves, NULL, 0, a->n, a->v, done, g);
}

static void answered(struct greeting *g)
{
    if (--g->left > 0)
        return;
    struct live *live = g->live;
    bool failed = g->failed, fenced = g->fenced;
    free(g);
    if (live->moves) /* not when live_free ends the greeting */
        redis_greeted(live->moves, !failed && !fenced);
    if (fenced)
        live->fenced(live->fenced_arg);
}

static void reply_any(void *arg, enum err err, const redisReply *reply)
{
    struct greeting *g = arg;
    (void)reply;
    g->failed = g->failed || err;
    answered(g);
}

static void reply_id(void *arg, enum err err, const redisReply *reply)
{
    struct greeting *g = arg;
    if (!err && reply->type == REDIS_REPLY_INTEGER)
        g->own = reply->integer;
    reply_any(g, err, reply);
}

static void reply_lead(void *arg, enum err err, const redisReply *reply)
{
    struct greeting *g = arg;
    if (!err && !(reply->type == REDIS_REPLY_INTEGER && reply->integer == 1))
        g->fenced = true;
    reply_any(g, err, reply);
}

static void close_client(struct greeting *g, long long id)
{
    struct args a = {0};
    log_info("leader_cut_off", "client=%lld", id);
    args_client(&a, "KILL", id);
    say(g, &a, reply_any);
}

/* The number behind " <word>=" in a client's line, or -1. */
static long long field(const char *line, const char *word)
{
    const char *at = strstr(line, word);
    return at ? atoll(at + strlen(word)) : -1;
}

/* One line of the list of clients: closes leaders of no higher epoch in this database, but for this connection. A
 * higher one fences, also where its key was lost. */
static void look_at_client(struct greeting *g, const char *line)
{
    long long epoch = field(line, " name=" NAME), id = field(line, "id=");
    if (epoch < 0 || id <= 0 || id == g->own || field(line, " db=") != redis_database(g->live->moves))
        return;
    if (epoch > g->live->epoch)
        g->fenced = true;
    else
        close_client(g, id);
}

static void reply_list(void *arg, enum err err, const redisReply *reply)
{
    struct greeting *g = arg;
    char *rest = NULL, *text = !err && reply->type == REDIS_REPLY_STRING ? reply->str : NULL;
    g->failed = g->failed || !text || !g->own;
    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line && !g->failed && !g->fenced;
         line = strtok_r(NULL, "\n", &rest))
        look_at_client(g, line);
    answered(g);
}

static void say_words(struct greeting *g, redis_done_fn *done, int n, const char *const *words)
{
    struct args a = {0};
    for (int i = 0; i < n; i++)
        args_raw(&a, words[i], strlen(words[i]));
    say(g, &a, done);
}

static void greet(void *arg)
{
    struct live *live = arg;
    struct args key = {0};
    char name[48];
    struct greeting *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->live = live;
    snprintf(name, sizeof name, NAME "%lld", (long long)live->epoch);
    say_words(g, reply_id, 2, (const char *const[]){"CLIENT", "ID"});
    say_words(g, reply_any, 3, (const char *const[]){"CLIENT", "SETNAME", name});
    args_raw(&key, "muster:leader", 13);
    args_printf(&key, "%lld", (long long)live->epoch);
    g->left++;
    redis_greeting(live->moves, "lead", 1, key.n, key.v, reply_lead, g);
    say_words(g, reply_list, 4, (const char *const[]){"CLIENT", "LIST", "TYPE", "normal"});
}

void live_lead(struct live *live, int64_t epoch, void (*fenced)(void *arg), void *arg)
{
    live->epoch = epoch;
    live->fenced = fenced;
    live->fenced_arg = arg;
    redis_on_connect(live->moves, greet, live);
}
