/* Devices on their way in: from files into ImportDevices, and tokens on their way out.
 * Owns: nothing between calls. May call: cli/session. Loop rule: runs the loop until done. */
#ifndef MUSTER_CLI_DEVICE_ROWS_H
#define MUSTER_CLI_DEVICE_ROWS_H

#include <stdio.h>

#include "cli/session.h"
#include "muster/v1/device_service.pb-c.h"

struct device_row {
    char *id;
    Muster__V1__Platform platform;
    const Muster__V1__Device *labels; /* its tags, attributes and information; NULL: none */
};

/* Sends `rows` as one ImportDevices stream, with `replace` so that devices keep no other labels. Returns owned: the
 * answer; NULL with the error printed. */
Muster__V1__ImportDevicesResponse *device_rows_import(struct session *s, const struct device_row *rows, size_t count,
                                                      bool replace);

struct device_tokens {
    int64_t lifetime_ms; /* 0: the service's default */
    bool revoke_earlier;
    FILE *out; /* "<device id> <token>" lines, or answers in JSON with the session's --json */
};
/* Issues credentials for `ids`, thousands a call. Returns an exit status; errors are printed. */
int device_rows_tokens(struct session *s, char **ids, size_t count, const struct device_tokens *how);

#endif
