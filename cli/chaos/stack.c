#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/chaos/chaos.h"
#include "cli/chaos/load.h"
#include "cli/chaos/memory.h"
#include "lib/store/db_bootstrap.h"
#include "muster/v1/device_service.pb-c.h"

#define READY_S 60
/* Members of a group of the load's. */
#define GROUP_DEVICES 100

const char *chaos_prefix(int tenant)
{
    static const char *const prefixes[CHAOS_TENANTS] = {"ash", "elm"};

    return prefixes[tenant];
}

/* "host:port" of the proxy's listening socket as libpq wants it. */
static const char *port_of(const char *listen)
{
    return strrchr(listen, ':') + 1;
}

/* Routes of one daemon to the stores; its connection strings go by them. */
static bool daemon_routes(struct chaos *c, const char *daemon, char postgres[DEV_PATH_BYTES],
                          char redis[DEV_PATH_BYTES])
{
    char name[64], target[DEV_PATH_BYTES + 64];
    const char *ports[CHAOS_NODES], *listen;

    for (int i = 0; i < CHAOS_NODES; i++) {
        snprintf(name, sizeof name, "%s.pg%d", daemon, i + 1);
        snprintf(target, sizeof target, "unix:%s/.s.PGSQL.5432", c->nodes[i].sockets);
        if (!(listen = chaos_route_add(c, name, target)))
            return false;
        ports[i] = port_of(listen);
    }
    snprintf(postgres, DEV_PATH_BYTES,
             "host=127.0.0.1,127.0.0.1 port=%s,%s user=muster dbname=postgres target_session_attrs=read-write",
             ports[0], ports[1]);
    snprintf(name, sizeof name, "%s.redis", daemon);
    snprintf(target, sizeof target, "unix:%s", c->redis_socket);
    if (!(listen = chaos_route_add(c, name, target)))
        return false;
    snprintf(redis, DEV_PATH_BYTES, "redis://%s", listen);
    return true;
}

static bool start_daemon(struct chaos *c, struct dev_process *p, const char *program, int number,
                         const struct arg_list *more)
{
    char name[32], postgres[DEV_PATH_BYTES], redis[DEV_PATH_BYTES];

    snprintf(name, sizeof name, "%s-%d", program, number);
    if (!daemon_routes(c, name, postgres, redis) || !dev_daemon_make(&c->dev, p, program, number, postgres, redis))
        return false;
    for (size_t i = 0; i < more->count; i++)
        dev_process_arg(p, more->items[i]);
    return dev_process_start(p) && dev_process_wait_ready(p, READY_S);
}

static bool start_daemons(struct chaos *c)
{
    /* Short, so that a run is; the rest as in production. */
    static const char *worker_flags[] = {"--lease=2s", "--not-now-retry=500ms"};
    static const char *dispatcher_flags[] = {"--leader-lease=2s"};
    const struct arg_list dispatcher = {.items = dispatcher_flags, .count = 1},
                          worker = {.items = worker_flags, .count = 2};
    char name[32];

    for (int i = 0; i < c->options.dispatchers; i++)
        if (!start_daemon(c, &c->dev.dispatchers[i], "dispatcher", i + 1, &dispatcher))
            return false;
    for (int i = 0; i < c->options.workers; i++) {
        snprintf(name, sizeof name, "worker-%d.devices", i + 1);
        if (!start_daemon(c, &c->dev.workers[i], "worker", i + 1, &worker) ||
            !chaos_route_add(c, name, c->dev.workers[i].listen))
            return false;
    }
    return true;
}

struct common chaos_caller(const struct chaos *c, int tenant, int dispatcher)
{
    struct common who = c->inv->common;

    who.target = (char *)c->dev.dispatchers[dispatcher].listen;
    who.ca = (char *)c->dev.ca;
    who.api_key = (char *)c->api_keys[tenant];
    who.plaintext = false;
    who.log_level = (char *)"error"; /* what is lost is lost on purpose */
    return who;
}

static bool make_groups(struct chaos *c, int tenant)
{
    Muster__V1__CreateGroupRequest request = MUSTER__V1__CREATE_GROUP_REQUEST__INIT;
    struct common who = chaos_caller(c, tenant, 0);
    static char ids[GROUP_DEVICES][24];
    char *list[GROUP_DEVICES], name[24];
    struct session s;
    bool ok = session_open(&s, &who) == ERR_OK;

    for (unsigned g = 0; ok && g < LOAD_GROUPS; g++) {
        uint64_t random = g;
        for (int i = 0; i < GROUP_DEVICES; i++) {
            snprintf(ids[i], sizeof ids[i], "%.12s-%07u", chaos_prefix(tenant),
                     (unsigned)(schedule_random(&random) % chaos_devices(c)));
            list[i] = ids[i];
        }
        snprintf(name, sizeof name, "group-%u", g);
        request.name = name;
        request.device_ids = list;
        request.n_device_ids = GROUP_DEVICES;
        ProtobufCMessage *answer = session_call(&s, "DeviceService/CreateGroup", &request.base,
                                                &muster__v1__create_group_response__descriptor);
        ok = answer != NULL;
        session_free_message(answer);
    }
    session_close(&s);
    return ok;
}

static bool make_tenants(struct chaos *c)
{
    FILE *tokens = dev_credentials_open(&c->dev);
    char error[512] = "";
    bool ok = tokens != NULL;

    for (int i = 0; ok && i < CHAOS_TENANTS; i++) {
        if (db_bootstrap(c->nodes[c->primary].conninfo, chaos_prefix(i), "muster chaos", c->api_keys[i], error,
                         sizeof error) != ERR_OK) {
            fprintf(stderr, "muster chaos: %s\n", error);
            ok = false;
            break;
        }
        struct common who = chaos_caller(c, i, 0);
        ok = dev_devices_register(&c->dev, &who, chaos_prefix(i), chaos_devices(c), tokens) && make_groups(c, i);
    }
    if (tokens && fclose(tokens) != 0)
        ok = false;
    return ok;
}

static void on_fleet_line(void *arg, const char *line)
{
    struct chaos *c = arg;

    if (strncmp(line, "recorded ", 9) != 0)
        return;
    c->recorded = true;
    ev_break(c->dev.group.loop, EVBREAK_ALL);
}

/* Devices that do what devices do: think, fail, put off, crash, say things twice. */
static bool start_fleet(struct chaos *c)
{
    struct dev_process *p = &c->dev.fleet;
    char workers[CHAOS_WORKERS * DEV_ADDRESS_BYTES] = "", seed[24];
    size_t n = 0;

    for (int i = 0; i < c->route_count; i++)
        if (strstr(c->routes[i].name, ".devices"))
            n += (size_t)snprintf(workers + n, sizeof workers - n, "%s%s", n ? "," : "", c->routes[i].listen);
    if (!dev_path(c->record, c->dev.data, "record") || !dev_fleet_make(&c->dev, workers))
        return false;
    snprintf(seed, sizeof seed, "%" PRId64, c->options.seed);
    dev_process_args(p, "--record", c->record, "--record-changes", "--quiet", "--seed", seed, "--think", "5ms..60ms",
                     "--failed", "0.02", "--rejected", "0.02", "--not-now", "0.02", "--crash", "0.002", "--duplicate",
                     "0.02", "--backoff", "200ms", "--keepalive", "20s", NULL);
    p->heard = on_fleet_line;
    p->heard_arg = c;
    return dev_process_start(p) && dev_process_wait_ready(p, READY_S + (double)c->options.devices / 100);
}

/* Our own way to the stores: not through the proxy, and to whichever server is the primary. */
static bool connect_stores(struct chaos *c)
{
    char conninfo[2 * DEV_PATH_BYTES + 96];
    const struct pg_options options = {.conninfo = conninfo, .connections = 1, .application = "muster-chaos"};

    snprintf(conninfo, sizeof conninfo, "host=%s,%s user=muster dbname=postgres target_session_attrs=read-write",
             c->nodes[0].sockets, c->nodes[1].sockets);
    c->pg = pg_new(c->dev.group.loop, &options);
    c->redis = redis_new(c->dev.group.loop, c->dev.redis_url);
    return c->pg && c->redis;
}

bool chaos_bring_up(struct chaos *c)
{
    struct dev *dev = &c->dev;

    chaos_small_disks_allow(c);
    if (!dev_folders_make(dev) || !dev_certificates_make(dev) ||
        !dev_path(c->probe_journal, dev->data, "journal-probe"))
        return false;
    chaos_say(c, "starting PostgreSQL, Redis, %d dispatchers and %d workers in %s", (int)c->options.dispatchers,
              (int)c->options.workers, dev->data);
    if (!chaos_stores_make(c) || !chaos_network_start(c) || !connect_stores(c) || !start_daemons(c))
        return false;
    chaos_say(c, "registering and connecting %d devices of %d tenants", (int)c->options.devices, CHAOS_TENANTS);
    if (!make_tenants(c) || !start_fleet(c))
        return false;
    c->memory = memory_new(c);
    return true;
}

/* What stands still does not hear SIGTERM. */
static void wake(const struct dev_process *p)
{
    if (p->pid > 0)
        kill(p->pid, SIGCONT);
}

void chaos_take_down(struct chaos *c)
{
    struct dev *dev = &c->dev;

    dev->group.ending = true;
    memory_free(&c->memory);
    for (int i = 0; i < CHAOS_TENANTS; i++)
        dev_process_stop(&c->loads[i], SIGKILL, 10);
    dev_process_stop(&dev->fleet, SIGTERM, 60);
    for (int i = 0; i < CHAOS_WORKERS; i++) {
        wake(&dev->workers[i]);
        dev_process_stop(&dev->workers[i], SIGTERM, 30);
    }
    for (int i = 0; i < CHAOS_DISPATCHERS; i++) {
        wake(&dev->dispatchers[i]);
        dev_process_stop(&dev->dispatchers[i], SIGTERM, 30);
    }
    pg_free(&c->pg);
    redis_free(&c->redis);
    dev_process_stop(&c->proxy, SIGTERM, 10);
    dev_process_stop(&dev->redis, SIGTERM, 30);
    for (int i = 0; i < CHAOS_NODES; i++)
        if (c->nodes[i].made)
            dev_process_stop(&c->nodes[i].process, SIGQUIT, 60);
}
