/* Watching a batch: a live bar on a terminal, plain lines elsewhere, JSON lines on request.
 * Owns: nothing between calls. May call: cli/session, cli/show, cli/progress. Loop rule: runs the loop until done. */
#ifndef MUSTER_CLI_BATCH_WATCH_H
#define MUSTER_CLI_BATCH_WATCH_H

#include "cli/session.h"
#include "cli/show.h"

/* The batch as the last message had it. */
struct watch_result {
    bool closed;
    int64_t id, created_ms, closed_ms; /* wall clock of the service */
    uint32_t devices;
    uint32_t counts[SHOW_STATES];
    char counts_text[320];
};

/* Watches until the batch is closed. A service that goes away meanwhile is asked again for 30 s. Returns EXIT_DONE when
 * every command SUCCEEDED, EXIT_NOT_ALL when the batch ended otherwise, EXIT_RPC_FAIL with the error printed. */
int batch_watch_run(struct session *s, int64_t batch, struct watch_result *result);
/* Prints "batch 1: 10000 devices, 10000 SUCCEEDED, 0.71 s, 14084 commands/s". */
void batch_watch_summary(const struct watch_result *result);

#endif
