/* PUBACKs that a device is still to get, in the order its PUBLISHes came: outcomes become durable in another, and MQTT
 * wants the order of the PUBLISHes kept (3.1.1: MQTT-4.6.0-2; 5.0: 4.6). Owns: struct pubacks, embedded in a session.
 * May call: nothing. Loop rule: pure. */
#ifndef MUSTER_WORKERS_PUBACKS_H
#define MUSTER_WORKERS_PUBACKS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

#define PUBACKS_MAX 64

struct puback {
    uint16_t id;    /* of the packet; 0: it came at QoS 0 and gets none */
    uint8_t reason; /* once it is settled */
    bool settled;
};

/* All zero: none. One a device: nearly all have none or one, which need no memory besides. */
struct pubacks {
    union {
        struct puback few[2];
        struct puback *many;
    };
    uint16_t first; /* token of the oldest */
    uint8_t count;
    uint8_t named; /* of them, with an id */
    bool grown;    /* `many` is owned, with room for PUBACKS_MAX */
};

void pubacks_free(struct pubacks *p);
/* Behind all others; `token` is for pubacks_settle. False without memory, or if there are PUBACKS_MAX. */
MUST_CHECK bool pubacks_add(struct pubacks *p, uint16_t id, uint16_t *token);
/* What to say is known. */
void pubacks_settle(struct pubacks *p, uint16_t token, uint8_t reason);
/* Takes the oldest out, if it is settled; else, or if there is none, false. */
bool pubacks_next(struct pubacks *p, struct puback *next);

#endif
