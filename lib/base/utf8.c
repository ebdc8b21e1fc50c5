#include "lib/base/utf8.h"

/* The table is Unicode 15, table 3-7. */
size_t utf8_sequence(const uint8_t *p, size_t n)
{
    static const struct {
        uint8_t first, last, second_low, second_high, len;
    } kinds[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (p[0] < kinds[k].first || p[0] > kinds[k].last)
            continue;
        size_t len = kinds[k].len;
        if (len > n || (len > 1 && (p[1] < kinds[k].second_low || p[1] > kinds[k].second_high)))
            return 0;
        for (size_t i = 2; i < len; i++)
            if ((p[i] & 0xc0) != 0x80)
                return 0;
        return len;
    }
    return 0;
}

bool utf8_good(struct slice s)
{
    size_t len;
    for (size_t i = 0; i < s.len; i += len)
        if ((len = utf8_sequence(s.data + i, s.len - i)) == 0)
            return false;
    return true;
}
