/* Mistakes that the models can be told to make, so that tests see the oracle notice them: `build/sim --mutation n`.
 * Owns: their numbers. May call: nothing. Loop rule: none. */
#ifndef MUSTER_TESTS_SIM_MUTATION_H
#define MUSTER_TESTS_SIM_MUTATION_H

enum mutation {
    MUTATION_NONE,
    MUTATION_RECORD_OVERWRITES, /* record lets an outcome change a terminal state */
    MUTATION_REAP_KEEPS,        /* reap frees the devices, but what was in the worker's hands stays there */
    MUTATION_DETACH_ANYBODY,    /* detach does not ask whether the device is still this worker's */
    MUTATION_ATTACH_FORGETS,    /* attach gives what is QUEUED, not what is ROUTED or SENT */
    MUTATION_FENCE_OPEN,        /* writes of a leader whose lease is over go through */
    MUTATION_ACK_EARLY,         /* a flush is answered, and then not committed, now and then */
    MUTATION_DEAD_NOT_FENCED,   /* worker_dead leaves the lease free to be taken again */
    MUTATION_ROUTE_FORGETS,     /* route does not join with what stands there */
    MUTATION_APPLY_SKIPS,       /* apply leaves the last slot out */
    MUTATION_CLOSE_KEEPS,       /* close leaves the state string */
    MUTATION_ATTACH_BACKWARDS,  /* attach gives the newest first */
    MUTATION_LOG_SKIPS,         /* open_log misses the last row of a stream for good */
    MUTATION_LOSES_COUNT,       /* HINCRBY begins anew each time */
    MUTATION_COUNTS_NOT_NOW,    /* record counts a delivery that the device has put off */
    MUTATION_GIVES_UP,          /* record makes an end of what is to be tried again */
    MUTATION_ATTACH_GIVES_HELD, /* attach gives what waits to be tried again */
    MUTATION_COUNT
};

#endif
