/* Redis's answers in the turns of a loop that has sockets to look after too. The Redis is the test itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/store/redis.h"

#define GREETINGS_MAX 1000

struct scene {
    struct ev_loop *loop;
    struct redis *redis;
    char folder[32], url[64];
    const char *path;     /* in `url` */
    int listener, server; /* the server's end of the connection */
    int pair[2];          /* what a peer says comes out of the first */
    ev_io peer;
    unsigned answers, heard;
    unsigned answers_before; /* the peer was heard */
    bool sent_before;        /* what followed from the first answer had left by then */
};

static const struct slice ping[] = {{(const uint8_t *)"PING", 4}};

static void on_answer(void *arg, enum err err, const redisReply *reply)
{
    struct scene *s = arg;
    (void)reply;
    if (s->answers++ > 0)
        return;
    assert_int_equal(err, ERR_OK);
    redis_command(s->redis, 1, ping, on_answer, s);
}

/* Whether something has come from the client; takes it. */
static bool server_heard(const struct scene *s)
{
    char bytes[256];
    return recv(s->server, bytes, sizeof bytes, MSG_DONTWAIT) > 0;
}

static void turn(const struct scene *s)
{
    ev_run(s->loop, EVRUN_NOWAIT);
}

static void on_peer(struct ev_loop *loop, ev_io *w, int revents)
{
    struct scene *s = w->data;
    (void)revents;
    ev_io_stop(loop, w);
    s->heard++;
    s->answers_before = s->answers;
    s->sent_before = server_heard(s);
}

static int set_up(void **state)
{
    static struct scene scene;
    struct scene *s = &scene;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    *state = s;
    strcpy(s->folder, "/tmp/muster-redis-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->url, sizeof s->url, "unix://%.24s/s", s->folder);
    s->path = s->url + strlen("unix://");
    memcpy(a.sun_path, s->path, strlen(s->path));
    s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listener, (const struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 1), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s->pair), 0);
    s->loop = ev_loop_new(0);
    s->redis = redis_new(s->loop, s->url);
    assert_non_null(s->redis);
    turn(s);
    s->server = accept(s->listener, NULL, NULL);
    assert_true(s->server >= 0);
    turn(s); /* sends what it says first, of which it waits for each answer */
    for (int i = 0; i < GREETINGS_MAX && !redis_up(s->redis); i++) {
        while (server_heard(s))
            ;
        assert_int_equal(write(s->server, "+OK\r\n", 5), 5);
        turn(s);
    }
    assert_true(redis_up(s->redis));
    return 0;
}

static int tear_down(void **state)
{
    struct scene *s = *state;
    redis_free(&s->redis);
    ev_loop_destroy(s->loop);
    close(s->listener);
    close(s->server);
    close(s->pair[0]);
    close(s->pair[1]);
    unlink(s->path);
    rmdir(s->folder);
    return 0;
}

/* What Redis says is for many, and what follows from it goes on before the sockets of the same turn have their say. */
static void answers_come_before_what_peers_say(void **state)
{
    struct scene *s = *state;
    ev_io_init(&s->peer, on_peer, s->pair[0], EV_READ);
    s->peer.data = s;
    ev_io_start(s->loop, &s->peer);
    redis_command(s->redis, 1, ping, on_answer, s);
    turn(s);
    assert_true(server_heard(s));
    assert_int_equal(write(s->server, "+PONG\r\n", 7), 7);
    assert_int_equal(write(s->pair[1], "x", 1), 1);
    turn(s);
    assert_int_equal(s->heard, 1);
    assert_int_equal(s->answers_before, 1);
    assert_true(s->sent_before);
}

/* Without a turn of the loop. */
static void answers_can_be_looked_for(void **state)
{
    struct scene *s = *state;
    s->answers = 0;
    redis_command(s->redis, 1, ping, on_answer, s);
    turn(s);
    assert_true(server_heard(s));
    redis_receive(s->redis);
    assert_int_equal(s->answers, 0);
    assert_int_equal(write(s->server, "+PONG\r\n", 7), 7);
    redis_receive(s->redis);
    assert_int_equal(s->answers, 1);
    assert_true(server_heard(s)); /* what followed from it has left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_come_before_what_peers_say, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_can_be_looked_for, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
