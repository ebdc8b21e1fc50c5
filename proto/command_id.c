#include "proto/command_id.h"

#define TENANT_BITS 30

static const uint8_t dash_after[16] = {[3] = 1, [5] = 1, [7] = 1, [9] = 1};

void command_id_write(char *out, const struct command_id *id)
{
    static const char hex[] = "0123456789abcdef";
    uint64_t high = id->batch << 16 | 0x8000u;
    uint64_t low = 2ull << 62 | (uint64_t)id->tenant << 32 | id->seq;
    for (unsigned i = 0; i < 16; i++) {
        unsigned byte = (unsigned)((i < 8 ? high : low) >> (56 - i % 8 * 8)) & 0xff;
        *out++ = hex[byte >> 4];
        *out++ = hex[byte & 15];
        if (dash_after[i])
            *out++ = '-';
    }
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (uint8_t)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool command_id_read(struct command_id *id, const void *text, size_t len)
{
    const uint8_t *p = text;
    uint64_t half[2] = {0, 0};
    if (len != COMMAND_ID_TEXT)
        return false;
    for (unsigned i = 0; i < 16; i++) {
        int a = hex_value(p[0]), b = hex_value(p[1]);
        if (a < 0 || b < 0)
            return false;
        half[i / 8] = half[i / 8] << 8 | (unsigned)(a << 4 | b);
        p += 2;
        if (dash_after[i] && *p++ != '-')
            return false;
    }
    id->batch = half[0] >> 16;
    id->tenant = (uint32_t)(half[1] >> 32) & ((1u << TENANT_BITS) - 1);
    id->seq = (uint32_t)half[1];
    return (half[0] & 0xffff) == 0x8000 && half[1] >> 62 == 2 && id->batch > 0 && id->tenant > 0;
}
