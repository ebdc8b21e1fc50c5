#include "lib/base/http_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/address_public.h"
#include "lib/base/list.h"

#define CONNECT_MS  5000
#define TOTAL_MS    15000
#define CONNECTIONS 64
/* Of an answer's body so much is read; then the connection is closed. */
#define ANSWER_BYTES 65536

struct http_client {
    struct ev_loop *loop;
    CURLM *multi;
    ev_timer timer;
    struct list requests, sockets;
    char *ca_file;
    bool allow_private;
    long connect_ms, total_ms;
};

/* One that libcurl wants to hear of. */
struct http_socket {
    struct list link;
    struct http_client *client;
    ev_io io;
};

struct http_request {
    struct list link;
    struct http_client *client;
    CURL *easy;
    struct curl_slist *headers;
    char error[CURL_ERROR_SIZE];
    size_t answered;
    bool refused; /* an address was not public */
    void (*done)(void *arg, int status, const char *failure);
    void *arg;
};

/* --- requests ----------------------------------------------------------------------------------------------------- */

static void request_free(struct http_request *r)
{
    if (r->easy) {
        curl_multi_remove_handle(r->client->multi, r->easy);
        curl_easy_cleanup(r->easy);
    }
    curl_slist_free_all(r->headers);
    list_remove(&r->link);
    free(r);
}

static void finish(struct http_request *r, CURLcode code)
{
    void (*done)(void *, int, const char *) = r->done;
    void *arg = r->arg;
    char failure[CURL_ERROR_SIZE + 16] = "";
    long status = 0;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    /* A body that is too long is none of the status' matter. */
    if (code != CURLE_OK && !(code == CURLE_WRITE_ERROR && r->answered > ANSWER_BYTES)) {
        status = 0;
        snprintf(failure, sizeof failure, "%s",
                 r->refused    ? "its address is not public"
                 : r->error[0] ? r->error
                               : curl_easy_strerror(code));
    }
    request_free(r);
    done(arg, (int)status, failure);
}

static void reap(struct http_client *c)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(c->multi, &left))) {
        struct http_request *r = NULL;
        CURLcode code = m->data.result;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)(void *)&r);
        finish(r, code);
    }
}

/* --- sockets and time ----------------------------------------------------------------------------------------------
 */

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    struct http_client *c = container_of(io, struct http_socket, io)->client;
    int running, what = (events & EV_READ ? CURL_CSELECT_IN : 0) | (events & EV_WRITE ? CURL_CSELECT_OUT : 0);
    (void)loop;
    curl_multi_socket_action(c->multi, io->fd, what, &running); /* the socket may be gone after this */
    reap(c);
}

static void on_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    struct http_client *c = container_of(t, struct http_client, timer);
    int running;
    (void)loop, (void)events;
    curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    reap(c);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
    struct http_client *c = arg;
    (void)multi;
    ev_timer_stop(c->loop, &c->timer);
    if (ms < 0)
        return 0;
    ev_timer_set(&c->timer, (double)ms / 1000., 0);
    ev_timer_start(c->loop, &c->timer);
    return 0;
}

static void forget_socket(struct http_socket *s)
{
    ev_io_stop(s->client->loop, &s->io);
    list_remove(&s->link);
    free(s);
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct http_client *c = arg;
    struct http_socket *s = known;
    int events = (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0);
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s)
            forget_socket(s);
        curl_multi_assign(c->multi, fd, NULL);
        return 0;
    }
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s)
            return -1;
        s->client = c;
        ev_init(&s->io, on_io);
        list_append(&c->sockets, &s->link);
        curl_multi_assign(c->multi, fd, s);
    }
    ev_io_stop(c->loop, &s->io);
    ev_io_set(&s->io, fd, events);
    ev_io_start(c->loop, &s->io);
    return 0;
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_request *r = arg;
    if (purpose != CURLSOCKTYPE_IPCXN || (!r->client->allow_private && !address_is_public(&address->addr))) {
        r->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t take_answer(char *data, size_t size, size_t n, void *arg)
{
    struct http_request *r = arg;
    (void)data;
    r->answered += size * n;
    return r->answered > ANSWER_BYTES ? 0 : size * n;
}

/* --- the client ----------------------------------------------------------------------------------------------------
 */

struct http_client *http_client_new(struct ev_loop *loop, const struct http_options *o)
{
    struct http_client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->loop = loop;
    list_init(&c->requests);
    list_init(&c->sockets);
    ev_timer_init(&c->timer, on_timer, 0, 0);
    c->allow_private = o->allow_private;
    c->connect_ms = o->connect_ms ? o->connect_ms : CONNECT_MS;
    c->total_ms = o->total_ms ? o->total_ms : TOTAL_MS;
    bool named = o->ca_file && *o->ca_file;
    c->ca_file = named ? strdup(o->ca_file) : NULL;
    bool ready = (!named || c->ca_file) && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    c->multi = ready ? curl_multi_init() : NULL;
    if (!c->multi) {
        if (ready)
            curl_global_cleanup();
        free(c->ca_file);
        free(c);
        return NULL;
    }
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, o->connections ? o->connections : (long)CONNECTIONS);
    return c;
}

void http_client_free(struct http_client **client)
{
    struct http_client *c = *client;
    *client = NULL;
    if (!c)
        return;
    while (!list_empty(&c->requests))
        request_free(container_of(c->requests.next, struct http_request, link));
    curl_multi_cleanup(c->multi);
    while (!list_empty(&c->sockets))
        forget_socket(container_of(c->sockets.next, struct http_socket, link));
    ev_timer_stop(c->loop, &c->timer);
    curl_global_cleanup();
    free(c->ca_file);
    free(c);
}

static bool add_headers(struct http_request *r, const struct http_post *post)
{
    static const char *const fixed[] = {"Expect:", "Accept:"}; /* none of libcurl's own */
    for (size_t i = 0; i < post->header_count + 2; i++) {
        struct curl_slist *list = curl_slist_append(r->headers, i < 2 ? fixed[i] : post->headers[i - 2]);
        if (!list)
            return false;
        r->headers = list;
    }
    return true;
}

#define SET(option, value) (code = code ? code : curl_easy_setopt(r->easy, option, value))

static bool set_up(struct http_request *r, const struct http_post *post)
{
    struct http_client *c = r->client;
    CURLcode code = CURLE_OK;
    SET(CURLOPT_PRIVATE, (char *)r);
    SET(CURLOPT_ERRORBUFFER, r->error);
    SET(CURLOPT_URL, post->url);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_FOLLOWLOCATION, 0l);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1l);
    SET(CURLOPT_QUICK_EXIT, 1l); /* else the end of a request waits for the thread that resolves its name */
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_SSL_VERIFYPEER, 1l);
    SET(CURLOPT_SSL_VERIFYHOST, 2l);
    if (c->ca_file) {
        SET(CURLOPT_CAINFO, c->ca_file);
        SET(CURLOPT_CAPATH, NULL);
    }
    SET(CURLOPT_CONNECTTIMEOUT_MS, c->connect_ms);
    SET(CURLOPT_TIMEOUT_MS, c->total_ms);
    SET(CURLOPT_USERAGENT, "muster/" MUSTER_VERSION);
    SET(CURLOPT_HTTPHEADER, r->headers);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_OPENSOCKETDATA, r);
    SET(CURLOPT_WRITEFUNCTION, take_answer);
    SET(CURLOPT_WRITEDATA, r);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)post->body.len);
    SET(CURLOPT_COPYPOSTFIELDS, (const char *)post->body.data);
    return code == CURLE_OK;
}

bool http_client_post(struct http_client *c, const struct http_post *post)
{
    struct http_request *r = calloc(1, sizeof *r);
    if (!r)
        return false;
    r->client = c;
    r->done = post->done;
    r->arg = post->arg;
    list_append(&c->requests, &r->link);
    r->easy = curl_easy_init();
    if (r->easy && add_headers(r, post) && set_up(r, post) && curl_multi_add_handle(c->multi, r->easy) == CURLM_OK)
        return true; /* its timer comes from the loop */
    request_free(r);
    return false;
}

bool http_url_ok(const char *url)
{
    CURLU *u = curl_url();
    char *part = NULL;
    bool ok = u && strncmp(url, "https://", 8) == 0 && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK;
    ok = ok && curl_url_get(u, CURLUPART_HOST, &part, 0) == CURLUE_OK && *part;
    curl_free(part);
    part = NULL;
    ok = ok && curl_url_get(u, CURLUPART_USER, &part, 0) == CURLUE_NO_USER;
    curl_free(part);
    part = NULL;
    ok = ok && curl_url_get(u, CURLUPART_FRAGMENT, &part, 0) == CURLUE_NO_FRAGMENT;
    curl_free(part);
    curl_url_cleanup(u);
    return ok;
}
