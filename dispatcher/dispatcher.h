/* What the parts of one dispatcher share.
 * Owns: nothing; main.c makes the parts and frees them. May call: the headers below. Loop rule: none. */
#ifndef MUSTER_DISPATCHER_DISPATCHER_H
#define MUSTER_DISPATCHER_DISPATCHER_H

#include <ev.h>
#include <stdint.h>

#include "dispatcher/shares.h"
#include "lib/base/list.h"
#include "lib/base/metrics.h"

struct dispatcher {
    struct ev_loop *loop;
    struct pg *pg;
    struct live *live;
    struct leader *leader;
    struct auth *auth;
    struct acceptor *acceptor;
    struct shares calls, streams; /* requests being handled: those with one answer, and the others */
    struct gate_keeper *gates;
    struct watches *watches;
    struct mailboxes *mailboxes;
    struct refusals *refusals;
    int64_t mailbox_max; /* open commands of a device; 0: any number */
    struct event_watches *event_watches;
    int64_t webhook_life_ms; /* an event that is older is given up when it fails */
    int64_t unannounced;     /* a batch that is durable and no leader has been told of; 0: none */
    struct list exports;     /* under way */
    struct dispatcher_figures {
        uint64_t batches_accepted, commands_accepted, batches_replayed, quota_refused, mailbox_refused,
            devices_imported;
        uint64_t auth_lookups, auth_refused, watchers, progress_polls, store_errors;
        uint64_t requests, requests_shed, event_watchers, events_told;
        struct histogram accept; /* request read to answer, accepted batches */
    } figures;
};

#endif
