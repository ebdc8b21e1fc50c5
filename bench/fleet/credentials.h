/* Who the simulated devices are.
 * Owns: struct credentials, the text of the file. May call: the C library. Loop rule: start-up only. */
#ifndef MUSTER_FLEET_CREDENTIALS_H
#define MUSTER_FLEET_CREDENTIALS_H

#include <stdint.h>

#include "lib/base/err.h"

struct credential {
    const char *id, *token; /* token NULL: no password */
};

struct credentials {
    char *text;
    struct credential *list;
    uint32_t count;
};

/* Reads lines "<device id> <token>" of `file`, passes over `offset` of them and takes `count`. Without a file (NULL)
 * makes ids up. On an error prints one line that names it; credentials_free() is due then too. */
MUST_CHECK enum err credentials_load(struct credentials *c, const char *file, uint32_t offset, uint32_t count);
void credentials_free(struct credentials *c);

#endif
