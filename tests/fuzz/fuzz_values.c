/* Values per device from a CSV file, as `muster batch submit --values` reads it: refused with a line, or a message
 * whose rows are all as long as its heading. */
#include <setjmp.h>

#include "cli/input.h"
#include "cli/values.h"
#include "lib/base/arena.h"
#include "tests/fuzz/input.h"

static jmp_buf refused;
static struct slice file;

/* In place of cli/args.c and cli/input.c, which end the process. */
_Noreturn void args_refuse(const struct invocation *inv, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    (void)inv;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    longjmp(refused, 1);
}

void *invocation_alloc(struct invocation *inv, size_t size)
{
    void *p = arena_alloc(&inv->arena, size);
    check(p);
    memset(p, 0, size);
    return p;
}

char *invocation_copy(struct invocation *inv, const void *data, size_t len)
{
    char *p = invocation_alloc(inv, len + 1);
    if (len)
        memcpy(p, data, len);
    return p;
}

char *input_file(struct invocation *inv, const char *path, size_t *len)
{
    (void)path;
    *len = file.len;
    return invocation_copy(inv, file.data, file.len);
}

static void look(const Muster__V1__Values *v)
{
    size_t len = protobuf_c_message_get_packed_size(&v->base);
    uint8_t *bytes = malloc(len + 1);
    check(bytes && protobuf_c_message_pack(&v->base, bytes) == len);
    ProtobufCMessage *again = protobuf_c_message_unpack(&muster__v1__values__descriptor, NULL, len, bytes);
    check(again);
    protobuf_c_message_free_unpacked(again, NULL);
    free(bytes);
    check(v->n_device_ids > 0 || v->others_get_defaults);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct invocation inv = {.command = "muster batch submit"};
    file = (struct slice){data, size};
    if (setjmp(refused) == 0)
        look(values_from_file(&inv, "values.csv"));
    arena_free(&inv.arena);
    return 0;
}
