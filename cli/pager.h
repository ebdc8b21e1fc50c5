/* Lists: fetches page after page of an answer and shows each.
 * Owns: the page tokens. May call: cli/session, cli/show. Loop rule: as session.h. */
#ifndef MUSTER_CLI_PAGER_H
#define MUSTER_CLI_PAGER_H

#include "cli/session.h"

struct pager {
    const char *method;
    ProtobufCMessage *request;
    char **page_token;   /* the request's field */
    uint32_t *page_size; /* the request's field */
    const ProtobufCMessageDescriptor *response;
    const char *items; /* name of the response's repeated field, to count with */
    /* One answer as text; `first` for the first page: print the headings then. Returns nothing; --json prints by
     * itself. */
    void (*show)(const ProtobufCMessage *response, bool first);
};

/* What a list takes besides its own flags. */
struct pager_flags {
    int64_t limit; /* 0: all */
};
#define PAGER_FLAG(flags)                                                                                              \
    {                                                                                                                  \
        "limit", ARG_INT, &(flags).limit, "N", "at most so many; all when absent", 1, 1000000000                       \
    }

/* Runs to the last page or the limit. Opens and closes its own session. Returns an exit status. */
int pager_run(struct invocation *inv, struct pager *pager, const struct pager_flags *flags);

#endif
