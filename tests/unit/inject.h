/* Failures on demand: the nth allocation, or the nth call of the system's input and output, fails or falls short. A
 * scenario is run again and again with n = 0, 1, 2 … until it runs through without having met the failure.
 * Owns: what stands in for malloc and its kin, recv, send, accept4, socket, connect (the linker's --wrap, for this
 * project's code; OpenSSL, jansson, nghttp2 and protobuf-c by their own hooks). May call: cmocka. Loop rule: none. */
#ifndef MUSTER_TESTS_UNIT_INJECT_H
#define MUSTER_TESTS_UNIT_INJECT_H

#include <stdbool.h>
#include <stddef.h>

enum injection {
    INJECT_NOTHING,
    INJECT_MEMORY, /* an allocation fails */
    /* Of recv and send: */
    INJECT_SHORT, /* one byte at most */
    INJECT_EINTR,
    INJECT_EAGAIN,
    INJECT_RESET, /* ECONNRESET */
    INJECT_PIPE,  /* recv: ECONNRESET; send: EPIPE */
    /* Of accept4, socket and connect: */
    INJECT_EMFILE,
    INJECT_ABORTED, /* accept4: ECONNABORTED, the connection is gone; connect: ECONNREFUSED; socket: ENFILE */
    INJECT_CALL,    /* a call of hiredis or libpq fails (tests/store) */
};

/* Lets OpenSSL and jansson allocate here; call it first in main. */
void inject_init(void);
/* From now on the nth call that `what` can befall (0: the first) is befallen, with `for_good` all after it too. */
void inject_arm(enum injection what, long n, bool for_good);
/* For who stands in for a function: whether this call is to fail, if the injection is `from` … `to`. */
bool inject_strikes(enum injection from, enum injection to);
/* No more. Returns whether it has happened. */
bool inject_disarm(void);
bool inject_happened(void);
/* How often. */
long inject_times(void);
/* Around what a test does for itself, where nothing is to fail; nests. */
void inject_hold(void);
void inject_go_on(void);

/* Runs `scenario` with n = 0, step, 2 step … (with INJECT_ALL in the environment: each) and ends with the first run
 * that was not befallen. Returns its n. The scenario arms nothing itself; `what` is told to it, so that it knows what
 * may come of it. */
typedef void inject_scenario(void *arg, enum injection what);
long inject_each(enum injection what, bool for_good, long step, inject_scenario *scenario, void *arg);

/* "EINTR"; for messages. */
const char *inject_name(enum injection what);
/* Descriptors open in this process. */
size_t inject_descriptors(void);

#endif
