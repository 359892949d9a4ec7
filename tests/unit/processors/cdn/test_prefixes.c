/* The longest prefix, against a slow search that cannot be wrong. */
#include "processors/cdn/prefixes.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
/* after setjmp.h and stdarg.h */
#include <cmocka.h>

#include <stdlib.h>

static struct flue_address address(const char *text)
{
    struct flue_address out;
    assert_true(flue_address_parse(flue_bytes_of(text), &out));
    return out;
}

static struct flue_prefix prefix(const char *text, uint32_t place)
{
    struct flue_prefix out;
    bool masked;
    assert_true(flue_prefix_parse(flue_bytes_of(text), &out, &masked));
    out.place = place;
    return out;
}

static void texts(void **state)
{
    static const char *const bad[] = {"",          "10.0.0.0/33", "10.0.0.0/",  "10.0.0.0/-1",
                                      "10.0.0",    "::/129",      "::1/1e1",    "a/8",
                                      "10.0.0.0/8/9", "::ffff:10.0.0.0/95", "1.2.3.4.5", "/8"};
    struct flue_prefix p;
    bool masked;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (flue_prefix_parse(flue_bytes_of(bad[i]), &p, &masked))
            fail_msg("%s", bad[i]);
    assert_true(flue_prefix_parse(FLUE_BYTES(" 198.51.100.2/24 "), &p, &masked));
    assert_true(masked); /* as the example in AWS's own documentation */
    assert_int_equal(p.address.bytes[3], 0);
    assert_true(flue_prefix_parse(FLUE_BYTES("::ffff:10.1.0.0/112"), &p, &masked));
    assert_false(p.address.v6);
    assert_int_equal(p.length, 16);
    assert_false(masked);
    struct flue_address a = address("[2001:db8::1]"), mapped = address("::ffff:10.1.2.3");
    assert_true(a.v6);
    assert_false(mapped.v6);
    assert_true(flue_prefix_holds(&p, &mapped));
    a = address("10.2.0.0");
    assert_false(flue_prefix_holds(&p, &a));
}

static unsigned disputes;
static void dispute(void *arg, const struct flue_prefix *one, const struct flue_prefix *other)
{
    disputes++;
}

static void nesting(void **state)
{
    struct flue_prefix items[] = {
        prefix("10.0.0.0/8", 2),       prefix("10.1.0.0/16", 3),  prefix("10.1.1.0/24", 4),
        prefix("255.255.255.255", 5),  prefix("0.0.0.0/1", 6),    prefix("10.1.1.0/24", 4),
        prefix("2001:db8::/32", 7),    prefix("2001:db8::1", 8),  prefix("2001:db8::/64", 9),
        prefix("2001:db8::/96", 10),   prefix("ffff::/16", 11),   prefix("10.7.0.0/16", 12),
        prefix("10.7.0.0/16", 13),     prefix("2001:db9::5", 14), prefix("::/0", 15),
        prefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 16)};
    static const struct {
        const char *address;
        uint32_t place;
    } want[] = {{"10.0.0.1", 2},        {"10.1.0.1", 3},         {"10.1.1.255", 4},
                {"10.1.2.0", 3},        {"11.0.0.0", 6},         {"127.255.255.255", 6},
                {"128.0.0.0", 0},       {"255.255.255.255", 5},  {"255.255.255.254", 0},
                {"2001:db8::1", 8},     {"2001:db8::2", 10},     {"2001:db8::1:0:0", 9},
                {"2001:db8:0:1::", 7},  {"2001:db9::5", 14},     {"2001:db9::4", 15},
                {"2001:db9::6", 15},    {"fffe::", 15},          {"10.7.1.1", 1},
                {"ffff::1", 11},        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 16},
                {"::", 15},             {"0.0.0.0", 6}};
    struct flue_prefixes *p;
    struct flue_error error;

    disputes = 0;
    assert_int_equal(flue_prefixes_build(items, sizeof items / sizeof items[0], 1, dispute, NULL,
                                         &p, &error),
                     FLUE_OK);
    assert_int_equal(disputes, 1);
    assert_int_equal(flue_prefixes_count(p), sizeof items / sizeof items[0] - 2);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        struct flue_address a = address(want[i].address);
        if (flue_prefixes_find(p, &a) != want[i].place)
            fail_msg("%s: %u, not %u", want[i].address, flue_prefixes_find(p, &a), want[i].place);
    }
    flue_prefixes_destroy(p);
}

static void empty(void **state)
{
    struct flue_prefixes *p;
    struct flue_address four = address("1.2.3.4"), six = address("::1");
    assert_int_equal(flue_prefixes_build(NULL, 0, 1, NULL, NULL, &p, NULL), FLUE_OK);
    assert_int_equal(flue_prefixes_find(p, &four), 0);
    assert_int_equal(flue_prefixes_find(p, &six), 0);
    flue_prefixes_destroy(p);
}

static uint64_t seed = 12345;
static uint32_t draw(void) /* splitmix64 */
{
    uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(z >> 32);
}

/* Prefixes in a small corner, so that they nest and touch; every edge of every one is asked. */
static void against_a_slow_search(void **state)
{
    for (int round = 0; round < 60; round++) {
        size_t count = 1 + draw() % 300;
        struct flue_prefix *items = calloc(count, sizeof *items), *kept;
        struct flue_prefixes *p;
        bool v6 = round % 2;
        for (size_t i = 0; i < count; i++) {
            char text[64];
            bool masked;
            if (v6)
                snprintf(text, sizeof text, "2001:db8:0:%x::%x:%x/%u", draw() % 4, draw() % 3,
                         draw() % 16, draw() % 3 ? 48 + draw() % 81 : draw() % 65);
            else
                snprintf(text, sizeof text, "10.%u.%u.%u/%u", draw() % 3, draw() % 3, draw() % 256,
                         draw() % 33);
            assert_true(flue_prefix_parse(flue_bytes_of(text), &items[i], &masked));
            /* the place follows from the prefix: equal ones agree */
            items[i].place = 2 + (items[i].address.bytes[1] * 7u + items[i].address.bytes[2] * 13u +
                                  items[i].address.bytes[3] * 29u +
                                  items[i].address.bytes[15] * 31u + items[i].length) % 9;
        }
        kept = malloc(count * sizeof *kept);
        memcpy(kept, items, count * sizeof *kept);
        assert_int_equal(flue_prefixes_build(items, count, 1, NULL, NULL, &p, NULL), FLUE_OK);
        for (size_t ask = 0; ask < 4 * count; ask++) {
            struct flue_address a = kept[ask % count].address;
            unsigned at = v6 ? 15 - draw() % 10 : 3 - draw() % 4;
            if (ask / count == 1)
                a.bytes[at]--;
            else if (ask / count == 2)
                a.bytes[at] ^= (uint8_t)(1u << draw() % 8);
            else if (ask / count == 3)
                for (unsigned i = kept[ask % count].length; i < (v6 ? 128u : 32u); i++)
                    a.bytes[i / 8] |= (uint8_t)(0x80u >> i % 8); /* the last address in it */
            uint32_t best = 0;
            int longest = -1;
            for (size_t i = 0; i < count; i++) {
                if (kept[i].length > longest && flue_prefix_holds(&kept[i], &a)) {
                    longest = kept[i].length;
                    best = kept[i].place;
                }
            }
            assert_int_equal(flue_prefixes_find(p, &a), best);
        }
        flue_prefixes_destroy(p);
        free(items);
        free(kept);
    }
}

static void a_million_in_64_megabytes(void **state)
{
    size_t count = 1000000;
    struct flue_prefix *items = calloc(count, sizeof *items);
    struct flue_prefixes *p;
    assert_non_null(items);
    for (size_t i = 0; i < count; i++) {
        items[i].address.v6 = true;
        for (int b = 0; b < 6; b++)
            items[i].address.bytes[b] = (uint8_t)draw();
        items[i].length = 48;
        items[i].place = 2 + draw() % 1000;
    }
    assert_int_equal(flue_prefixes_build(items, count, 1, NULL, NULL, &p, NULL), FLUE_OK);
    assert_in_range(flue_prefixes_bytes(p), 8u << 20, 40u << 20);
    flue_prefixes_destroy(p);
    free(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts), cmocka_unit_test(nesting), cmocka_unit_test(empty),
        cmocka_unit_test(against_a_slow_search), cmocka_unit_test(a_million_in_64_megabytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
