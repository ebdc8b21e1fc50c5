/* grpc.health.v1.Health (grpc/grpc doc/health-checking.md): Check and Watch over a table of services.
 * Owns: struct grpc_health. May call: lib/base/grpc_server. Loop rule: never blocks; watchers are told when a state
 * changes. */
#ifndef MUSTER_BASE_GRPC_HEALTH_H
#define MUSTER_BASE_GRPC_HEALTH_H

#include <stdbool.h>

#include "lib/base/grpc_server.h"

struct grpc_health;

/* Adds the Health service to `server`; it knows the server as a whole (""), which is not serving at first. Returns
 * owned, or NULL without memory; must outlive the server. */
struct grpc_health *grpc_health_new(struct grpc_server *server);
void grpc_health_free(struct grpc_health **health);
/* Sets the state of a service ("" is the server as a whole), known from then on, and tells its watchers. Copies the
 * name. Does nothing after grpc_health_shutdown. */
void grpc_health_set(struct grpc_health *health, const char *service, bool serving);
/* Nothing serves any more; watchers are told and their calls end with UNAVAILABLE, so that they do not hold up a drain.
 */
void grpc_health_shutdown(struct grpc_health *health);

#endif
