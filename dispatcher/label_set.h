/* The labels of one message of ImportDevices: which there are, and which device gets which.
 * Owns: struct label_set, the limits of labels. May call: lib/store/db_label.h for names, libsodium. Loop rule: none,
 * pure. */
#ifndef MUSTER_DISPATCHER_LABEL_SET_H
#define MUSTER_DISPATCHER_LABEL_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/store/db_label.h"
#include "muster/v1/device_service.pb-c.h"
#include "proto/status.h"

#define LABEL_TAGS_MAX       64u /* of a device */
#define LABEL_ATTRIBUTES_MAX 64u
#define LABEL_VALUE_MAX      256u        /* bytes of a tag, or of an attribute's value */
#define LABEL_TIME_ZONE      "time_zone" /* the attribute that is a field of the device too */

/* Zero-initialised is empty and valid. */
struct label_set {
    char **keys; /* of each label: its name, NUL, its value, NUL */
    const char **names, **values;
    size_t count, cap;
    uint32_t *table; /* of numbers from 1, 0: free; a power of two of places */
    size_t places;
    int32_t *devices, *labels;
    size_t pairs, pairs_cap;
    uint8_t hash_key[16];
};

/* Says what is wrong with the labels of a device, the fields being "<path>.tags[0]" and so on. */
void label_set_check(struct status *st, const char *path, const Muster__V1__Device *device);
/* Adds the labels of a checked device, the `number`th of the statement from 1. False without memory. */
MUST_CHECK bool label_set_add(struct label_set *set, int32_t number, const Muster__V1__Device *device);
/* For db_label_import; borrows from the set. */
struct db_labels label_set_labels(const struct label_set *set, bool replace);
void label_set_free(struct label_set *set);

#endif
