/* Span labels in every form, and the bounded table of what was seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "processors/span_links/ids.h"
#include "processors/span_links/seen.h"

static bool add(struct ids *ids, const char *key, const char *text, int64_t number)
{
    const struct id_value value = {text != NULL, flue_bytes_of(text), number};
    enum id_form form = id_form_of(flue_bytes_of(key));
    struct id id;
    assert_int_not_equal(form, ID_NONE);
    return id_read(form, &value, &id) && ids_add(ids, &id);
}

static void says(const struct ids *ids, const char *span, const char *trace)
{
    struct id_link link;
    char hex[32];
    ids_link(ids, &link);
    assert_int_equal(link.has_span, span != NULL);
    assert_int_equal(link.has_trace, trace != NULL);
    flue_hex(flue_bytes(link.span, 8), hex);
    assert_memory_equal(hex, span ? span : "0000000000000000", 16);
    flue_hex(flue_bytes(link.trace, 16), hex);
    assert_memory_equal(hex, trace ? trace : "00000000000000000000000000000000", 32);
}

static void every_form(void **state)
{
    static const struct {
        const char *key, *text;
        int64_t number;
        const char *span;
    } forms[] = {
        {"span_id", "006550ebcf4dccbe", 0, "006550ebcf4dccbe"},
        {"profile_id", "ABCDEF0123456789", 0, "abcdef0123456789"},
        {"profile_id", NULL, 28517946373295294, "006550ebcf4dccbe"},
        {"span id", NULL, -1, "ffffffffffffffff"},
        {"span id", "18446744073709551615", 0, "ffffffffffffffff"},
        {"span id", "-2", 0, "fffffffffffffffe"},
        {"local root span id", NULL, 7, "0000000000000007"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct ids ids = {0};
        assert_true(add(&ids, forms[i].key, forms[i].text, forms[i].number));
        says(&ids, forms[i].span, NULL);
    }
    struct ids trace = {0};
    assert_true(add(&trace, "trace_id", "000102030405060708090a0b0c0d0e0f", 0));
    says(&trace, NULL, "000102030405060708090a0b0c0d0e0f");
    struct ids parts = {0};
    assert_true(add(&parts, "trace_id_hi", NULL, 0));
    says(&parts, NULL, NULL); /* a half is no id */
    assert_true(add(&parts, "trace_id_lo", NULL, -1));
    says(&parts, NULL, "0000000000000000ffffffffffffffff");
}

static void a_root_beside_its_span_stays_a_label(void **state)
{
    struct ids ids = {0};
    struct id_link link;
    add(&ids, "local root span id", NULL, 7);
    add(&ids, "span id", NULL, 9);
    says(&ids, "0000000000000009", NULL);
    ids_link(&ids, &link);
    assert_int_equal(link.told, 1u << ID_DD_SPAN);
    struct ids alone = {0};
    add(&alone, "local root span id", NULL, 7);
    says(&alone, "0000000000000007", NULL);
    ids_link(&alone, &link);
    assert_int_equal(link.told, 0); /* that it is a root is said by the label alone */
}

static void a_form_counts_once(void **state)
{
    struct ids ids = {0};
    assert_true(add(&ids, "span id", NULL, 5));
    assert_false(add(&ids, "span id", NULL, 6));
    says(&ids, "0000000000000005", NULL);
}

static void other_names_are_none(void **state)
{
    static const char *const names[] = {
        "",          "span",       "span-id",   "span_ID",     "trace_if",          "traceIdHI",
        "traceIdlo", "profile_iD", "trace_id_", "trace_id_hx", "local root span iD"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(id_form_of(flue_bytes_of(names[i])), ID_NONE);
}

static void impossible_forms(void **state)
{
    static const struct {
        const char *key, *text;
    } bad[] = {{"span_id", "6550ebcf4dccbe"},
               {"span_id", "006550ebcf4dccbg"},
               {"span_id", ""},
               {"span_id", "0000000000000000"},
               {"span_id", "006550ebcf4dccbe0"},
               {"span id", "18446744073709551616"},
               {"span id", "0x12"},
               {"span id", "0"},
               {"trace_id", "00000000000000000000000000000000"},
               {"trace_id", "000102030405060708090a0b0c0d0e"},
               {"trace_id", NULL}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ids ids = {0};
        assert_false(add(&ids, bad[i].key, bad[i].text, 5));
        says(&ids, NULL, NULL);
    }
    assert_int_equal(id_form_of(FLUE_BYTES("span_name")), ID_NONE);
}

static void seen_is_bounded_in_count_and_time(void **state)
{
    static const int service, config;
    const uint8_t a[16] = {1}, b[16] = {2};
    struct flue_bytes trace = flue_bytes(a, 16), other = flue_bytes(b, 16), unknown = {0};
    struct seen *seen = seen_get(&service, &config);
    assert_false(seen_asked(seen));
    assert_true(seen_wanted(seen, 1024, 100 * UINT64_C(1000000000)));
    assert_ptr_equal(seen_get(&service, &config), seen);
    seen_add(seen, 5, trace, 10);
    assert_true(seen_has(seen, 5, trace, 110));
    assert_false(seen_has(seen, 5, trace, 111));
    assert_false(seen_has(seen, 5, other, 20));
    assert_true(seen_has(seen, 5, unknown, 20));
    assert_false(seen_has(seen, 6, trace, 20));
    size_t known = 0;
    for (uint64_t i = 1; i <= 100000; i++)
        seen_add(seen, i, unknown, 30);
    for (uint64_t i = 1; i <= 100000; i++)
        known += seen_has(seen, i, unknown, 30);
    assert_in_range(known, 900, 1024);
    seen_drop(seen);
    seen_drop(seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form),
        cmocka_unit_test(a_root_beside_its_span_stays_a_label),
        cmocka_unit_test(a_form_counts_once),
        cmocka_unit_test(other_names_are_none),
        cmocka_unit_test(impossible_forms),
        cmocka_unit_test(seen_is_bounded_in_count_and_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
