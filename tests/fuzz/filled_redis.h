/* Stand-ins for what sessions ask Redis beside the specs of batches: it holds what it was filled with, and no command
 * is quarantined. For the one fuzzer that includes it. Owns: nothing. May call: lib/store/live (types only),
 * tests/fuzz/input. Loop rule: none. */
#ifndef MUSTER_TESTS_FUZZ_FILLED_REDIS_H
#define MUSTER_TESTS_FUZZ_FILLED_REDIS_H

#include "lib/store/live.h"
#include "tests/fuzz/input.h"

void live_count_loss(struct live *live, uint64_t batch, uint32_t seq, live_int_fn *done, void *arg)
{
    (void)live, (void)batch, (void)seq, (void)done, (void)arg;
    check(false);
}

void live_generation_get(struct live *live, live_int_fn *done, void *arg)
{
    (void)live;
    done(arg, ERR_OK, 1);
}

#endif
