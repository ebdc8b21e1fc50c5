/* Which wave a device belongs to: canary, order of registration, those who joined; asked for one and for a block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatcher/wave_order.h"

enum { BLOCKS = 3, PER_BLOCK = 10, ALL = BLOCKS * PER_BLOCK };

/* Device n is in block 5 * (n / 10), slot 7 + 100 * (n % 10). */
static uint32_t block(unsigned n)
{
    return 5 * (n / PER_BLOCK);
}

static unsigned slot(unsigned n)
{
    return 7 + 100 * (n % PER_BLOCK);
}

static void add(struct target_set *set, unsigned n)
{
    struct bitmap one = {{0}};
    bitmap_set(&one, slot(n));
    target_set_add(set, block(n), &one);
}

static void each_device_has_its_wave(void **unused)
{
    (void)unused;
    static const struct {
        const char *canary, *joined; /* devices, as letters a … ~ */
        uint32_t waves, limits[4];
        const char *expected; /* the wave of each */
    } cases[] = {
        {"", "", 0, {0}, "000000000000000000000000000000"},
        {"", "", 1, {30}, "000000000000000000000000000000"},
        {"", "", 3, {5, 12, 30}, "000001111111222222222222222222"},
        {"", "", 2, {10, 30}, "000000000011111111111111111111"},
        {"bz|", "", 2, {3, 30}, "101111111111111111111111101011"},    /* letters b, z, | */
        {"bz|", "", 3, {3, 5, 30}, "101222222222222222222222202022"}, /* two more: a and c; b is one of the canary */
        {"", "a", 2, {2, 29}, "100111111111111111111111111111"}, /* who joined is in the last, wherever he stands */
        {"b", "a", 3, {1, 3, 29}, "201122222222222222222222222222"},
        {"a", "b", 1, {29}, "000000000000000000000000000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wave_order o = {0};
        struct rollout r = {.waves = cases[i].waves};
        struct bitmap targets[BLOCKS] = {{{0}}};
        unsigned joined = 0;
        for (uint32_t w = 0; w < r.waves; w++)
            r.wave[w].limit = cases[i].limits[w];
        for (const char *c = cases[i].canary; *c; c++)
            add(&o.canary, (unsigned)(*c - 'a'));
        for (const char *c = cases[i].joined; *c; c++, joined++)
            add(&o.joined, (unsigned)(*c - 'a'));
        for (unsigned n = 0; n < ALL; n++)
            bitmap_set(&targets[n / PER_BLOCK], slot(n));
        for (unsigned b = 0; b < BLOCKS; b++)
            wave_order_add(&o, block(b * PER_BLOCK), &targets[b]);
        assert_false(o.failed);
        assert_int_equal(o.devices, ALL - joined);
        for (unsigned n = 0; n < ALL; n++) {
            const struct bitmap *t = &targets[n / PER_BLOCK];
            uint32_t wave = wave_order_of(&o, &r, n / PER_BLOCK, block(n), t, slot(n));
            if (wave != (uint32_t)(cases[i].expected[n] - '0'))
                fail_msg("case %zu, device %u: wave %u", i, n, wave);
            for (uint32_t out = 0; out <= r.waves; out++) {
                struct bitmap slots;
                wave_order_out(&o, &r, out, n / PER_BLOCK, block(n), t, &slots);
                assert_int_equal(bitmap_test(&slots, slot(n)), wave <= out);
            }
        }
        wave_order_free(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_device_has_its_wave)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
