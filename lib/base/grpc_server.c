#include "lib/base/grpc_server.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/grpc_server_internal.h"
#include "lib/base/log.h"

#define TICK_S 1.0

static void set_defaults(struct grpc_server_options *o)
{
    if (!o->max_message)
        o->max_message = 64u * 1024 * 1024;
    if (!o->max_header_list)
        o->max_header_list = 16 * 1024;
    if (!o->max_streams)
        o->max_streams = 256;
    if (!o->max_connections)
        o->max_connections = 4096;
    if (!o->max_buffered)
        o->max_buffered = 512u * 1024 * 1024;
    if (!o->min_ping_interval_ms)
        o->min_ping_interval_ms = 10 * 1000;
    if (!o->unread_timeout_ms)
        o->unread_timeout_ms = 30 * 1000;
    if (!o->idle_timeout_ms)
        o->idle_timeout_ms = 30 * 60 * 1000;
}

/* --- the turn ----------------------------------------------------------------------------------------------------- */

void grpc_server_mark_dirty(struct grpc_conn *conn)
{
    struct grpc_server *server = conn->server;
    if (!list_empty(&conn->dirty))
        return;
    list_append(&server->dirty, &conn->dirty);
    if (!ev_is_active(&server->awake))
        ev_idle_start(server->loop, &server->awake);
}

static void free_conns(struct grpc_server *server)
{
    while (!list_empty(&server->conns))
        grpc_conn_free(container_of(server->conns.next, struct grpc_conn, link));
    while (!list_empty(&server->strangers))
        grpc_conn_free(container_of(server->strangers.next, struct grpc_conn, link));
}

/* The last thing a callback does: `done` may free the server. */
static void check_drained(struct grpc_server *server)
{
    if (!server->draining || !server->done)
        return;
    bool late = clock_mono_us() >= server->drain_until;
    if (!late && server->stats.connections > 0)
        return;
    free_conns(server);
    void (*done)(void *) = server->done;
    server->done = NULL;
    ev_timer_stop(server->loop, &server->tick);
    done(server->done_arg);
}

static void on_flush(struct ev_loop *loop, ev_prepare *w, int revents)
{
    (void)revents;
    struct grpc_server *server = container_of(w, struct grpc_server, flush);
    struct list *l;
    while ((l = list_pop(&server->dirty)))
        grpc_conn_pump(container_of(l, struct grpc_conn, dirty));
    ev_idle_stop(loop, &server->awake);
}

static void on_awake(struct ev_loop *loop, ev_idle *w, int revents)
{
    (void)loop, (void)w, (void)revents;
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)revents;
    struct grpc_server *server = container_of(w, struct grpc_server, tick);
    int64_t now = clock_mono_us();
    struct list *lists[] = {&server->conns, &server->strangers};
    for (int i = 0; i < 2; i++)
        list_for_each (l, next, lists[i])
            grpc_conn_tick(container_of(l, struct grpc_conn, link), now);
    list_for_each (l, next, &server->calls)
        grpc_call_tick(container_of(l, struct grpc_call, link), now);
    if (server->draining) {
        ev_timer_set(w, 0.02, 0);
        ev_timer_start(loop, w);
    } else {
        ev_timer_again(loop, w);
    }
    check_drained(server);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct grpc_server *grpc_server_new(struct stream_hub *hub, const struct grpc_server_options *options)
{
    struct grpc_server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    server->hub = hub;
    server->loop = stream_hub_loop(hub);
    if (options)
        server->options = *options;
    set_defaults(&server->options);
    list_init(&server->conns);
    list_init(&server->strangers);
    list_init(&server->dirty);
    list_init(&server->calls);
    list_init(&server->pool);
    ev_prepare_init(&server->flush, on_flush);
    ev_prepare_start(server->loop, &server->flush);
    ev_unref(server->loop);
    ev_idle_init(&server->awake, on_awake);
    ev_init(&server->tick, on_tick);
    server->tick.repeat = TICK_S;
    ev_timer_again(server->loop, &server->tick);
    ev_unref(server->loop);
    return server;
}

static void free_listeners(struct grpc_server *server)
{
    for (size_t i = 0; i < server->listener_count; i++)
        stream_listener_free(&server->listeners[i].listener);
    server->listener_count = 0;
}

void grpc_server_free(struct grpc_server **serverp)
{
    struct grpc_server *server = *serverp;
    if (!server)
        return;
    server->done = NULL;
    free_listeners(server);
    free_conns(server);
    struct list *l;
    /* What is left are calls whose handlers have not finished; without a server they free themselves. */
    while ((l = list_pop(&server->calls)))
        container_of(l, struct grpc_call, link)->server = NULL;
    while ((l = list_pop(&server->pool))) {
        struct grpc_call *call = container_of(l, struct grpc_call, link);
        call->server = NULL;
        grpc_call_release(call);
    }
    while (server->services) {
        struct grpc_service *next = server->services->next;
        free(server->services);
        server->services = next;
    }
    ev_ref(server->loop);
    ev_prepare_stop(server->loop, &server->flush);
    ev_idle_stop(server->loop, &server->awake);
    if (!server->draining)
        ev_ref(server->loop);
    ev_timer_stop(server->loop, &server->tick);
    free(server->routes);
    free(server);
    *serverp = NULL;
}

struct grpc_call *grpc_call_new(struct grpc_conn *conn)
{
    struct grpc_server *server = conn->server;
    struct list *l = list_pop(&server->pool);
    struct grpc_call *call = l ? container_of(l, struct grpc_call, link) : calloc(1, sizeof *call);
    if (!call)
        return NULL;
    if (l)
        server->pool_count--;
    call->server = server;
    call->conn = conn;
    memcpy(call->peer, conn->peer, sizeof call->peer);
    call->in.max = server->options.max_message;
    call->arena.limit = GRPC_CALL_ARENA_MAX;
    call->deadline = INT64_MAX;
    h2_stream_init(&call->stream, &call->arena);
    list_init(&call->link);
    list_append(&server->calls, &call->link);
    server->stats.calls++;
    server->stats.calls_total++;
    return call;
}

/* --- services ----------------------------------------------------------------------------------------------------- */

static int compare_routes(const void *a, const void *b)
{
    return strcmp(((const struct grpc_route *)a)->method->path, ((const struct grpc_route *)b)->method->path);
}

void grpc_server_add(struct grpc_server *server, const struct grpc_method *methods, grpc_admit_fn *admit, void *service)
{
    size_t n = 0;
    while (methods[n].path)
        n++;
    struct grpc_service *s = calloc(1, sizeof *s);
    struct grpc_route *routes = realloc(server->routes, (server->route_count + n) * sizeof *routes);
    /* Start-up only: without memory for a table there is no server. */
    if (!s || !routes)
        abort();
    *s = (struct grpc_service){server->services, methods, admit, service};
    server->services = s;
    server->routes = routes;
    for (size_t i = 0; i < n; i++)
        routes[server->route_count++] = (struct grpc_route){&methods[i], s};
    qsort(routes, server->route_count, sizeof *routes, compare_routes);
}

const struct grpc_route *grpc_server_route(const struct grpc_server *server, const char *path)
{
    size_t low = 0, high = server->route_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(path, server->routes[mid].method->path);
        if (order == 0)
            return &server->routes[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

void grpc_server_each_service(const struct grpc_server *server, void (*each)(void *arg, const char *name, size_t len),
                              void *arg)
{
    const char *last = "";
    size_t last_len = 0;
    for (size_t i = 0; i < server->route_count; i++) {
        const char *name = server->routes[i].method->path + 1;
        size_t len = strcspn(name, "/");
        /* Routes are sorted, so a service's methods stand together. */
        if (len != last_len || memcmp(name, last, len) != 0)
            each(arg, name, len);
        last = name;
        last_len = len;
    }
}

/* --- listening and draining -----------------------------------------------------------------------------------------
 */

/* Who has never had a call admitted makes room for newcomers: of strangers alone nobody is kept out. */
static enum stream_room make_room(void *arg, bool scarce)
{
    struct grpc_server *server = ((struct grpc_listener *)arg)->server;
    bool full = scarce || server->stats.connections >= server->options.max_connections;
    if (!full || grpc_conn_drop_stranger(server))
        return STREAM_ROOM;
    /* Strangers that are at work for a moment only make the newcomers behind this one wait. */
    bool soon = !scarce && server->stats.connections < server->options.max_connections + GRPC_STRANGERS_LOOK;
    return soon && !list_empty(&server->strangers) ? STREAM_ROOM_SOON : STREAM_ROOM_NONE;
}

static void on_accept(struct stream *s, void *arg)
{
    struct grpc_listener *l = arg;
    if (!grpc_conn_new(l->server, s, l->tls))
        stream_close(s);
}

enum err grpc_server_listen(struct grpc_server *server, const char *address, struct tls *tls)
{
    if (server->listener_count == GRPC_LISTENERS_MAX)
        return ERR_LIMIT;
    struct grpc_listener *l = &server->listeners[server->listener_count];
    *l = (struct grpc_listener){.server = server, .tls = tls != NULL};
    l->listener = stream_listen(server->hub, address, tls, (int)(GRPC_STALL_US / 1000), on_accept, l);
    if (!l->listener)
        return ERR_IO;
    stream_listener_set_room(l->listener, make_room);
    server->listener_count++;
    return ERR_OK;
}

int grpc_server_port(const struct grpc_server *server)
{
    return server->listener_count ? stream_listener_port(server->listeners[0].listener) : 0;
}

void grpc_server_drain(struct grpc_server *server, int64_t timeout_ms, void (*done)(void *arg), void *arg)
{
    /* The tick was the loop's own affair; from now on the loop must not end before it has called `done`. */
    if (!server->draining)
        ev_ref(server->loop);
    server->draining = true;
    server->drain_until = clock_mono_us() + timeout_ms * 1000;
    server->done = done;
    server->done_arg = arg;
    free_listeners(server);
    struct list *lists[] = {&server->conns, &server->strangers};
    for (int i = 0; i < 2; i++)
        list_for_each (l, next, lists[i])
            grpc_conn_drain(container_of(l, struct grpc_conn, link));
    /* It looks often now; `done` never comes from inside this call. */
    ev_timer_stop(server->loop, &server->tick);
    ev_timer_set(&server->tick, 0, 0);
    ev_timer_start(server->loop, &server->tick);
}

const struct grpc_server_stats *grpc_server_stats(const struct grpc_server *server)
{
    return &server->stats;
}
