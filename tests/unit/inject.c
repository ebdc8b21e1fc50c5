#include "tests/unit/inject.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <nghttp2/nghttp2.h>
#include <openssl/crypto.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* More runs of one scenario than any needs: it does not end. */
#define RUNS_MAX 100000

static enum injection what;
static long left; /* calls until it happens */
static bool for_good;
static long times;
static int held;

bool inject_strikes(enum injection from, enum injection to)
{
    if (held || what < from || what > to)
        return false;
    if (left > 0) {
        left--;
        return false;
    }
    if (left < 0 && !for_good)
        return false;
    left = -1;
    times++;
    return true;
}

void inject_arm(enum injection kind, long n, bool ever_after)
{
    what = kind;
    left = n;
    for_good = ever_after;
    times = 0;
}

bool inject_happened(void)
{
    return times > 0;
}

long inject_times(void)
{
    return times;
}

bool inject_disarm(void)
{
    what = INJECT_NOTHING;
    return times > 0;
}

void inject_hold(void)
{
    held++;
}

void inject_go_on(void)
{
    held--;
}

long inject_each(enum injection kind, bool ever_after, long step, inject_scenario *scenario, void *arg)
{
    held = 0;
    if (getenv("INJECT_ALL"))
        step = 1;
    for (long n = 0; n < RUNS_MAX; n += step) {
        inject_arm(kind, n, ever_after);
        scenario(arg, kind);
        if (!inject_disarm())
            return n;
    }
    fail_msg("%s: the scenario has no end", inject_name(kind));
    return 0;
}

const char *inject_name(enum injection kind)
{
    static const char *const names[] = {"nothing",    "no memory", "short",  "EINTR",   "EAGAIN",
                                        "ECONNRESET", "EPIPE",     "EMFILE", "aborted", "a failing call"};
    return names[kind];
}

size_t inject_descriptors(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

#define NO_MEMORY inject_strikes(INJECT_MEMORY, INJECT_MEMORY)

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n)
{
    return NO_MEMORY ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return NO_MEMORY ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return NO_MEMORY ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    return NO_MEMORY ? NULL : __real_aligned_alloc(alignment, n);
}

char *__wrap_strdup(const char *s)
{
    return NO_MEMORY ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n)
{
    return NO_MEMORY ? NULL : __real_strndup(s, n);
}

static void *crypto_malloc(size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return __wrap_malloc(n);
}

static void *crypto_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return __wrap_realloc(p, n);
}

static void crypto_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    free(p);
}

void inject_init(void)
{
    if (CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free) != 1)
        abort();
    json_set_alloc_funcs(__wrap_malloc, free);
}

/* --- memory of libraries that take an allocator ---------------------------------------------------------------------
 */

static void *proto_alloc(void *data, size_t n)
{
    (void)data;
    return __wrap_malloc(n);
}

static void proto_free(void *data, void *p)
{
    (void)data;
    free(p);
}

ProtobufCMessage *__real_protobuf_c_message_unpack(const ProtobufCMessageDescriptor *d, ProtobufCAllocator *a, size_t n,
                                                   const uint8_t *data);
ProtobufCMessage *__wrap_protobuf_c_message_unpack(const ProtobufCMessageDescriptor *d, ProtobufCAllocator *a, size_t n,
                                                   const uint8_t *data);
ProtobufCMessage *__wrap_protobuf_c_message_unpack(const ProtobufCMessageDescriptor *d, ProtobufCAllocator *a, size_t n,
                                                   const uint8_t *data)
{
    static ProtobufCAllocator ours = {proto_alloc, proto_free, NULL};
    return __real_protobuf_c_message_unpack(d, a ? a : &ours, n, data);
}

/* nghttp2's calls fail as wholes: what it does itself with a want of memory in the middle of one (1.52 frees a frame
 * twice) is not ours to mend. */
#define FAILING(result, name, types, names)                                                                            \
    result __real_##name types;                                                                                        \
    result __wrap_##name types;                                                                                        \
    result __wrap_##name types                                                                                         \
    {                                                                                                                  \
        return NO_MEMORY ? NGHTTP2_ERR_NOMEM : __real_##name names;                                                    \
    }

FAILING(int, nghttp2_session_callbacks_new, (nghttp2_session_callbacks * *callbacks), (callbacks))
FAILING(int, nghttp2_option_new, (nghttp2_option * *option), (option))
FAILING(int, nghttp2_session_server_new2,
        (nghttp2_session * *session, const nghttp2_session_callbacks *callbacks, void *user,
         const nghttp2_option *option),
        (session, callbacks, user, option))
FAILING(int, nghttp2_session_client_new2,
        (nghttp2_session * *session, const nghttp2_session_callbacks *callbacks, void *user,
         const nghttp2_option *option),
        (session, callbacks, user, option))
FAILING(int, nghttp2_submit_response,
        (nghttp2_session * session, int32_t id, const nghttp2_nv *nv, size_t n, const nghttp2_data_provider *data),
        (session, id, nv, n, data))
FAILING(int32_t, nghttp2_submit_request,
        (nghttp2_session * session, const nghttp2_priority_spec *priority, const nghttp2_nv *nv, size_t n,
         const nghttp2_data_provider *data, void *user),
        (session, priority, nv, n, data, user))
FAILING(int, nghttp2_submit_trailer, (nghttp2_session * session, int32_t id, const nghttp2_nv *nv, size_t n),
        (session, id, nv, n))
FAILING(int, nghttp2_submit_settings,
        (nghttp2_session * session, uint8_t flags, const nghttp2_settings_entry *entries, size_t n),
        (session, flags, entries, n))
FAILING(int, nghttp2_submit_rst_stream, (nghttp2_session * session, uint8_t flags, int32_t id, uint32_t code),
        (session, flags, id, code))
FAILING(int, nghttp2_submit_goaway,
        (nghttp2_session * session, uint8_t flags, int32_t last, uint32_t code, const uint8_t *data, size_t n),
        (session, flags, last, code, data, n))
FAILING(int, nghttp2_session_resume_data, (nghttp2_session * session, int32_t id), (session, id))
FAILING(int, nghttp2_session_consume_stream, (nghttp2_session * session, int32_t id, size_t n), (session, id, n))
FAILING(int, nghttp2_session_consume_connection, (nghttp2_session * session, size_t n), (session, n))
FAILING(ssize_t, nghttp2_session_mem_recv, (nghttp2_session * session, const uint8_t *data, size_t n),
        (session, data, n))
FAILING(ssize_t, nghttp2_session_mem_send, (nghttp2_session * session, const uint8_t **data), (session, data))

/* --- input and output ----------------------------------------------------------------------------------------------
 */

ssize_t __real_recv(int fd, void *data, size_t n, int flags);
ssize_t __real_send(int fd, const void *data, size_t n, int flags);
int __real_accept4(int fd, struct sockaddr *a, socklen_t *len, int flags);
int __real_socket(int domain, int type, int protocol);
int __real_connect(int fd, const struct sockaddr *a, socklen_t len);
ssize_t __wrap_recv(int fd, void *data, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t n, int flags);
int __wrap_accept4(int fd, struct sockaddr *a, socklen_t *len, int flags);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_connect(int fd, const struct sockaddr *a, socklen_t len);

static ssize_t refused_io(bool sending)
{
    errno = what == INJECT_EINTR             ? EINTR
            : what == INJECT_EAGAIN          ? EAGAIN
            : what == INJECT_PIPE && sending ? EPIPE
                                             : ECONNRESET;
    return -1;
}

ssize_t __wrap_recv(int fd, void *data, size_t n, int flags)
{
    if (!inject_strikes(INJECT_SHORT, INJECT_PIPE))
        return __real_recv(fd, data, n, flags);
    return what == INJECT_SHORT ? __real_recv(fd, data, n ? 1 : 0, flags) : refused_io(false);
}

ssize_t __wrap_send(int fd, const void *data, size_t n, int flags)
{
    if (!inject_strikes(INJECT_SHORT, INJECT_PIPE))
        return __real_send(fd, data, n, flags);
    return what == INJECT_SHORT ? __real_send(fd, data, n ? 1 : 0, flags) : refused_io(true);
}

int __wrap_accept4(int fd, struct sockaddr *a, socklen_t *len, int flags)
{
    if (!inject_strikes(INJECT_EMFILE, INJECT_ABORTED))
        return __real_accept4(fd, a, len, flags);
    if (what == INJECT_EMFILE) {
        errno = EMFILE;
        return -1;
    }
    int taken = __real_accept4(fd, a, len, flags); /* it is gone all the same */
    if (taken >= 0) {
        close(taken);
        errno = ECONNABORTED;
    }
    return -1;
}

int __wrap_socket(int domain, int type, int protocol)
{
    if (!inject_strikes(INJECT_EMFILE, INJECT_ABORTED))
        return __real_socket(domain, type, protocol);
    errno = what == INJECT_EMFILE ? EMFILE : ENFILE;
    return -1;
}

int __wrap_connect(int fd, const struct sockaddr *a, socklen_t len)
{
    if (!inject_strikes(INJECT_ABORTED, INJECT_ABORTED))
        return __real_connect(fd, a, len);
    errno = ECONNREFUSED;
    return -1;
}
