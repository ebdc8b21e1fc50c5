/* A device's connection to a worker: the worker's end is lib/base/stream.h, the device's end is here.
 * Owns: struct stream, what is on its way in both directions. May call: world, net. Loop rule: events of the world. */
#ifndef MUSTER_TESTS_SIM_STREAM_H
#define MUSTER_TESTS_SIM_STREAM_H

#include "lib/base/buf.h"
#include "tests/sim/world.h"

struct stream;
struct stream_hub;
struct device;

/* Connects to the worker; NULL when it does not listen. */
struct stream *link_open(struct device *d, struct process *worker);
void link_write(struct stream *s, const void *data, size_t len);
/* The device's end goes. `silently`: the worker is not told, as when a phone has left the network. */
void link_close(struct stream *s, bool silently);
/* Nothing gets through in either direction until then. */
void link_stall(struct stream *s, int64_t until_us);
/* The worker's process at the other end. */
struct process *link_worker(const struct stream *s);
/* process.c: the hub of a running worker, or NULL. */
struct stream_hub *sim_process_hub(const struct process *p);
/* Ends of devices that are never closed, at the end of the world. */
void link_free(struct stream *s);
/* Those of which both ends are gone and that were to go in this moment. */
void links_free(struct world *w);

/* The device's callbacks (device.c). `sent_us`: when the worker wrote it; `sent_ms`: by its own clock. */
void device_data(struct device *d, const uint8_t *data, size_t len, int64_t sent_us, int64_t sent_ms);
void device_closed(struct device *d);

#endif
