#include "bench/fleet/uuid.h"

/* Where each byte's two digits stand. */
static const uint8_t places[UUID_BYTES] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

/* Value of a hexadecimal digit plus one; 0 for anything else. */
static const uint8_t digits[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

bool uuid_parse(const uint8_t *text, size_t len, uint8_t id[UUID_BYTES])
{
    if (len != UUID_TEXT || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-')
        return false;
    for (int i = 0; i < UUID_BYTES; i++) {
        unsigned hi = digits[text[places[i]]], lo = digits[text[places[i] + 1]];
        if (hi == 0 || lo == 0)
            return false;
        id[i] = (uint8_t)((hi - 1) << 4 | (lo - 1));
    }
    return true;
}

void uuid_write(const uint8_t id[UUID_BYTES], char text[UUID_TEXT])
{
    static const char hex[] = "0123456789abcdef";

    text[8] = text[13] = text[18] = text[23] = '-';
    for (int i = 0; i < UUID_BYTES; i++) {
        text[places[i]] = hex[id[i] >> 4];
        text[places[i] + 1] = hex[id[i] & 15];
    }
}
