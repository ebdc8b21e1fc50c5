/* HTTPS client: a name that takes long to resolve keeps nobody. What it does with servers: tests/integration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <dirent.h>
#include <netdb.h>
#include <semaphore.h>

#include "lib/base/http_client.h"

#define PATIENCE_S 30 /* longer waiting is for ever */

static sem_t asked, may_answer;

/* In place of the C library's: it takes until the test lets it. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    (void)name, (void)service, (void)hints, (void)out;
    sem_post(&asked);
    sem_wait(&may_answer);
    return EAI_AGAIN;
}

static void on_done(void *arg, int status, const char *failure)
{
    (void)failure;
    assert_int_equal(status, 0);
    ++*(unsigned *)arg;
}

static void on_look(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)t, (void)events;
}

static unsigned threads(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/task");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

struct scene {
    struct ev_loop *loop;
    struct http_client *client;
    unsigned done, threads;
};

static void begin(struct scene *s, long connect_ms)
{
    alarm(PATIENCE_S);
    sem_init(&asked, 0, 0);
    sem_init(&may_answer, 0, 0);
    *s = (struct scene){.loop = ev_loop_new(0), .threads = threads()};
    s->client = http_client_new(s->loop, &(struct http_options){.connect_ms = connect_ms});
    assert_non_null(s->client);
    const struct http_post post = {
        .url = "https://slow.example/", .body = {(const uint8_t *)"{}", 2}, .done = on_done, .arg = &s->done};
    assert_true(http_client_post(s->client, &post));
}

/* Lets the thread end, which nobody waits for. */
static void end(struct scene *s)
{
    http_client_free(&s->client);
    sem_post(&may_answer);
    while (threads() > s->threads)
        usleep(1000);
    ev_loop_destroy(s->loop);
    alarm(0);
}

static void its_time_ends_while_its_name_is_looked_up(void **state)
{
    struct scene s;
    (void)state;
    begin(&s, 50);
    while (!s.done)
        ev_run(s.loop, EVRUN_ONCE);
    assert_int_equal(s.done, 1);
    assert_int_equal(sem_wait(&asked), 0); /* and is still looked up, or will be */
    end(&s);
}

static void it_is_given_up_while_its_name_is_looked_up(void **state)
{
    struct scene s;
    ev_timer look; /* the thread wakes nobody */
    (void)state;
    begin(&s, 1000 * PATIENCE_S);
    ev_timer_init(&look, on_look, 0.001, 0.001);
    ev_timer_start(s.loop, &look);
    while (sem_trywait(&asked) < 0)
        ev_run(s.loop, EVRUN_ONCE);
    ev_timer_stop(s.loop, &look);
    http_client_free(&s.client);
    assert_int_equal(s.done, 0);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_time_ends_while_its_name_is_looked_up),
        cmocka_unit_test(it_is_given_up_while_its_name_is_looked_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
