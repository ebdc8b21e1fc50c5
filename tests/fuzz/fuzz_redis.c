/* A connection to something that calls itself Redis, over a real socket: the first byte says what the client wants of
 * it, the next in what pieces the answers come, the rest are the answers. Every callback comes exactly once. */
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/store/redis_internal.h"
#include "tests/fuzz/input.h"

#define REQUESTS 3

static struct ev_loop *loop;
static int listener;
static char url[96];
static unsigned told, heard;

/* Two short scripts instead of all: what is sent to Redis is not the matter here. */
bool redis_scripts_make(struct redis_scripts *s)
{
    static const char *const names[] = {"close", "route"};
    *s = (struct redis_scripts){calloc(2, sizeof *s->v), 2};
    if (!s->v)
        abort();
    for (int i = 0; i < 2; i++) {
        s->v[i].name = names[i];
        s->v[i].name_len = strlen(names[i]);
        memset(s->v[i].hash, 'a' + i, SCRIPT_HASH);
        buf_put_str(&s->v[i].text, "return 1");
    }
    return true;
}

void redis_scripts_free(struct redis_scripts *s)
{
    for (int i = 0; i < s->count; i++)
        buf_free(&s->v[i].text);
    free(s->v);
}

struct redis_script *redis_scripts_find(const struct redis_scripts *s, const char *name)
{
    return &s->v[strcmp(name, "route") == 0];
}

static unsigned touch_reply(const redisReply *reply)
{
    unsigned sum = 0;
    if (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS)
        sum = touch((struct slice){(const uint8_t *)reply->str, (size_t)reply->len});
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
        sum += touch_reply(reply->element[i]);
    return sum;
}

static void on_reply(void *arg, enum err err, const redisReply *reply)
{
    (void)arg;
    check((err == ERR_OK) == (reply != NULL));
    if (reply)
        touch_reply(reply);
    told++;
}

static void on_message(void *arg, struct slice message)
{
    (void)arg;
    touch(message);
    heard++;
}

static void turn(void)
{
    ev_run(loop, EVRUN_NOWAIT);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    (void)argc, (void)argv;
    log_init("fuzz", SILENT);
    snprintf(a.sun_path, sizeof a.sun_path, "/tmp/muster-fuzz-redis-%d", (int)getpid());
    snprintf(url, sizeof url, "unix://%s", a.sun_path);
    unlink(a.sun_path);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(listener, 8) == 0);
    loop = ev_default_loop(0);
    return 0;
}

static void swallow(int fd)
{
    static char room[256 * 1024];
    while (recv(fd, room, sizeof room, MSG_DONTWAIT) > 0)
        ;
}

static void say(int fd, const char *text, size_t len)
{
    if (len > 0)
        (void)!send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    turn();
    swallow(fd);
}

static void request(struct redis *redis, unsigned how)
{
    struct slice argv[] = {{(const uint8_t *)"GET", 3}, {(const uint8_t *)"key", 3}};
    for (unsigned i = 0; i < REQUESTS; i++, how >>= 1) {
        if (how & 1)
            redis_script(redis, "close", 2, 2, argv, on_reply, NULL);
        else
            redis_command(redis, 2, argv, on_reply, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = {data, size};
    uint8_t how = take_u8(&in);
    size_t piece = (size_t)take_u8(&in) + 1;
    struct redis *redis = redis_new(loop, url);
    check(redis);
    told = 0;
    if (how & 1)
        redis_subscribe(redis, "events", on_message, NULL);
    turn();
    turn();
    int fd = accept(listener, NULL, NULL);
    check(fd >= 0);
    say(fd, "", 0);
    /* The greeting's answers, unless the input is to give them. */
    for (unsigned i = 0; !(how & 2) && i < 32 && !redis_up(redis); i++)
        say(fd, "+OK\r\n", 5);
    if (!(how & 1))
        request(redis, how >> 2);
    turn();
    while (in.len > 0) {
        struct slice part = take_bytes(&in, piece);
        say(fd, (const char *)part.data, part.len);
    }
    close(fd);
    turn();
    redis_free(&redis);
    check(told == (how & 1 ? 0 : REQUESTS));
    return 0;
}
