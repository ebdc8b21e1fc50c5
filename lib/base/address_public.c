#include "lib/base/address_public.h"

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct range {
    uint8_t begin[4];
    unsigned bits;
};

static bool in_range(const uint8_t *a, const uint8_t *begin, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(a, begin, whole) == 0 && (!rest || (a[whole] ^ begin[whole]) >> (8 - rest) == 0);
}

static bool public_4(const uint8_t a[4])
{
    static const struct range ranges[] = {
        {{0, 0, 0, 0}, 8},      {{10, 0, 0, 0}, 8},    {{100, 64, 0, 0}, 10},   {{127, 0, 0, 0}, 8},
        {{169, 254, 0, 0}, 16}, {{172, 16, 0, 0}, 12}, {{192, 0, 0, 0}, 24},    {{192, 0, 2, 0}, 24},
        {{192, 168, 0, 0}, 16}, {{198, 18, 0, 0}, 15}, {{198, 51, 100, 0}, 24}, {{203, 0, 113, 0}, 24},
        {{224, 0, 0, 0}, 3},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (in_range(a, ranges[i].begin, ranges[i].bits))
            return false;
    return true;
}

/* Only 2000::/3 is given out; in it 2001:db8::/32 is for documents, 2001::/23 for protocols, 2002::/16 carries IPv4.
 * The prefix 64:ff9b::/96 translates to IPv4. */
static bool public_6(const uint8_t a[16])
{
    static const uint8_t global[16] = {0x20}, documents[16] = {0x20, 0x01, 0x0d, 0xb8}, protocols[16] = {0x20, 0x01},
                         six_to_four[16] = {0x20, 0x02}, translated[16] = {0, 0x64, 0xff, 0x9b},
                         mapped[16] = {[10] = 0xff, [11] = 0xff};
    if (in_range(a, mapped, 96) || in_range(a, translated, 96))
        return public_4(a + 12);
    if (in_range(a, six_to_four, 16))
        return public_4(a + 2);
    return in_range(a, global, 3) && !in_range(a, documents, 32) && !in_range(a, protocols, 23);
}

bool address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return public_4((const uint8_t *)&((const struct sockaddr_in *)(const void *)address)->sin_addr);
    if (address->sa_family == AF_INET6)
        return public_6(((const struct sockaddr_in6 *)(const void *)address)->sin6_addr.s6_addr);
    return false;
}
