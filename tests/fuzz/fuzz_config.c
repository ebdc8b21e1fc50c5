/* Settings: the first byte says how many of the following pieces (a length, then text) are arguments, what is left is
 * the file. Whatever is refused has a reason, and whatever is taken is within its bounds. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/config.h"
#include "lib/store/redis_internal.h"
#include "tests/fuzz/input.h"

#define ARGS_MAX 8

static struct settings {
    char *redis, *name;
    int64_t count, wait, room;
    bool tls;
} settings;

static struct config_option options[] = {
    {"redis", CONFIG_STRING, &settings.redis, "redis://127.0.0.1:6379", 0, 0, "where Redis is"},
    {"name", CONFIG_STRING, &settings.name, NULL, 0, 0, "a name"},
    {"count", CONFIG_INT, &settings.count, "7", -5, 100, "how many"},
    {"wait", CONFIG_DURATION, &settings.wait, "250ms", 0, 86400000, "how long"},
    {"room", CONFIG_SIZE, &settings.room, "64KiB", 0, 0, "how much"},
    {"tls-on", CONFIG_BOOL, &settings.tls, "true", 0, 0, "whether to speak TLS"},
    {0},
};

/* A file of these bytes at the path "/proc/self/fd/<n>". */
static void write_file(int fd, struct slice text)
{
    check(ftruncate(fd, 0) == 0);
    check(pwrite(fd, text.data, text.len, 0) == (ssize_t)text.len);
}

static void look_at(int first, int argc, const char *error)
{
    if (first == CONFIG_REFUSED) {
        check(error[0] && memchr(error, 0, CONFIG_ERROR_MAX));
        return;
    }
    check(first == CONFIG_HELP || first == CONFIG_VERSION || (first >= 1 && first <= argc));
    if (first < 0)
        return;
    check(settings.count >= -5 && settings.count <= 100 && settings.wait >= 0 && settings.wait <= 86400000);
    struct redis_address address;
    if (redis_address_parse(&address, settings.redis)) {
        check((address.host && *address.host && address.port > 0) || (address.path && *address.path));
        check(address.db >= 0);
        redis_address_free(&address);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_init("fuzz", SILENT);
    /* What is said of wrong addresses is of no use here. */
    check(freopen("/dev/null", "a", stdout) != NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[40];
    struct slice in = {data, size};
    char *argv[ARGS_MAX + 2] = {(char *)"muster-test"}, error[CONFIG_ERROR_MAX];
    int argc = 1;
    if (fd < 0) {
        fd = memfd_create("muster-fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "--config=/proc/self/fd/%d", fd);
    }
    uint8_t n = take_u8(&in) % ARGS_MAX;
    argv[argc++] = path;
    for (unsigned i = 0; i < n; i++)
        argv[argc++] = copy_text(take_bytes(&in, take_u8(&in)));
    write_file(fd, in);
    int first = config_read("muster-test", options, argc, argv, n & 1, error);
    look_at(first, argc, error);
    config_free(options);
    for (int i = 2; i < argc; i++)
        free(argv[i]);
    return 0;
}
