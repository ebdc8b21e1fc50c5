#include "lib/base/grpc_health.h"

#include <stdlib.h>
#include <string.h>

#include "grpc/health/v1/health.pb-c.h"
#include "lib/base/list.h"

#define SERVING         GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

struct entry {
    struct entry *next;
    bool serving;
    char name[];
};

struct watcher {
    struct list link;
    struct grpc_call *call;
    int told; /* the state sent last, -1 for none */
    char name[];
};

struct grpc_health {
    struct entry *entries;
    struct list watchers;
    bool down;
};

static int state_of(const struct grpc_health *health, const char *service)
{
    for (const struct entry *e = health->entries; e; e = e->next)
        if (strcmp(e->name, service) == 0)
            return e->serving ? SERVING : NOT_SERVING;
    return SERVICE_UNKNOWN;
}

static void respond(struct grpc_call *call, int state, bool last)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)state;
    if (last)
        grpc_call_reply(call, &response.base);
    else
        grpc_call_send(call, &response.base);
}

static void tell(struct grpc_health *health, struct watcher *w)
{
    int state = state_of(health, w->name);
    /* A watcher that does not read hears only the newest state. */
    if (state == w->told || grpc_call_pending(w->call) > 0)
        return;
    w->told = state;
    respond(w->call, state, false);
}

static void end_watch(struct watcher *w, const struct status *status)
{
    struct grpc_call *call = w->call;
    list_remove(&w->link);
    free(w);
    grpc_call_finish(call, status);
}

/* --- methods ------------------------------------------------------------------------------------------------------ */

static void check(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    const struct grpc_health *health = service;
    const Grpc__Health__V1__HealthCheckRequest *request = (const Grpc__Health__V1__HealthCheckRequest *)message;
    int state = state_of(health, request->service);
    if (state != SERVICE_UNKNOWN) {
        respond(call, state, true);
        return;
    }
    struct status st = {0};
    grpc_call_finish(call, status_set(&st, STATUS_NOT_FOUND, NULL, "unknown service"));
}

static void on_drain(struct grpc_call *call, void *service)
{
    tell(service, grpc_call_data(call));
}

static void watch(struct grpc_call *call, void *service, const ProtobufCMessage *message)
{
    struct grpc_health *health = service;
    const Grpc__Health__V1__HealthCheckRequest *request = (const Grpc__Health__V1__HealthCheckRequest *)message;
    size_t len = strlen(request->service) + 1;
    struct watcher *w = health->down || len > 1024 ? NULL : malloc(sizeof *w + len);
    if (!w) {
        struct status st = {0};
        respond(call, health->down ? NOT_SERVING : SERVICE_UNKNOWN, false);
        grpc_call_finish(call, status_set(&st, STATUS_UNAVAILABLE, NULL, "no watch possible"));
        return;
    }
    w->call = call;
    w->told = -1;
    memcpy(w->name, request->service, len);
    list_init(&w->link);
    list_append(&health->watchers, &w->link);
    grpc_call_set_data(call, w);
    grpc_call_on_drain(call, on_drain);
    tell(health, w);
}

static void watch_cancelled(struct grpc_call *call, void *service)
{
    (void)service;
    end_watch(grpc_call_data(call), NULL);
}

static const struct grpc_method methods[] = {
    {.path = "/grpc.health.v1.Health/Check",
     .request = &grpc__health__v1__health_check_request__descriptor,
     .response = &grpc__health__v1__health_check_response__descriptor,
     .message = check},
    {.path = "/grpc.health.v1.Health/Watch",
     .request = &grpc__health__v1__health_check_request__descriptor,
     .response = &grpc__health__v1__health_check_response__descriptor,
     .server_streaming = true,
     .message = watch,
     .cancelled = watch_cancelled},
    {.path = NULL},
};

/* --- life --------------------------------------------------------------------------------------------------------- */

struct grpc_health *grpc_health_new(struct grpc_server *server)
{
    struct grpc_health *health = calloc(1, sizeof *health);
    if (!health)
        return NULL;
    list_init(&health->watchers);
    grpc_server_add(server, methods, NULL, health);
    grpc_health_set(health, "", false);
    return health;
}

void grpc_health_free(struct grpc_health **healthp)
{
    struct grpc_health *health = *healthp;
    if (!health)
        return;
    while (!list_empty(&health->watchers))
        end_watch(container_of(health->watchers.next, struct watcher, link), NULL);
    while (health->entries) {
        struct entry *next = health->entries->next;
        free(health->entries);
        health->entries = next;
    }
    free(health);
    *healthp = NULL;
}

static void tell_all(struct grpc_health *health)
{
    list_for_each (l, next, &health->watchers)
        tell(health, container_of(l, struct watcher, link));
}

void grpc_health_set(struct grpc_health *health, const char *service, bool serving)
{
    if (health->down)
        return;
    struct entry *e = health->entries;
    while (e && strcmp(e->name, service) != 0)
        e = e->next;
    if (!e) {
        size_t len = strlen(service) + 1;
        e = malloc(sizeof *e + len);
        if (!e)
            return;
        memcpy(e->name, service, len);
        e->next = health->entries;
        health->entries = e;
    }
    e->serving = serving;
    tell_all(health);
}

void grpc_health_shutdown(struct grpc_health *health)
{
    struct status st = {0};
    status_set(&st, STATUS_UNAVAILABLE, NULL, "the server is shutting down");
    for (struct entry *e = health->entries; e; e = e->next)
        e->serving = false;
    tell_all(health);
    health->down = true;
    while (!list_empty(&health->watchers))
        end_watch(container_of(health->watchers.next, struct watcher, link), &st);
}
