/* Budgets and accounts: who is refused when, and that concurrent charges balance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <string.h>
#include <cmocka.h>
#include "collector/base/memory.h"

static void soft_and_hard(void **state)
{
    struct flue_budget budget;
    struct flue_account a, b;
    struct flue_error error;

    flue_budget_init(&budget, 1000);
    flue_account_init(&a, &budget, "profiles/a", 400);
    flue_account_init(&b, &budget, "profiles/b", 0);
    assert_int_equal(flue_account_admit(&a, 400, &error), FLUE_OK);
    assert_int_equal(flue_account_admit(&a, 401, &error), FLUE_OVERLOADED);
    assert_non_null(strstr(error.text, "profiles/a"));
    assert_non_null(strstr(error.text, "400"));
    assert_true(flue_account_charge(&a, 700)); /* a body under way may pass the soft share */
    assert_int_equal(flue_account_admit(&a, 0, NULL), FLUE_OVERLOADED);
    assert_int_equal(flue_account_admit(&b, 300, &error), FLUE_OK);
    assert_int_equal(flue_account_admit(&b, 301, &error), FLUE_OVERLOADED);
    assert_non_null(strstr(error.text, "1000"));
    assert_true(flue_account_charge(&b, 300));
    assert_false(flue_account_charge(&b, 1));
    assert_int_equal(atomic_load(&b.used), 300);
    flue_account_charge_always(&b, 50);
    assert_int_equal(atomic_load(&budget.used), 1050);
    flue_account_release(&b, 350);
    flue_account_release(&a, 700);
    assert_int_equal(atomic_load(&budget.used), 0);
    assert_int_equal(atomic_load(&a.used), 0);
    assert_false(flue_account_charge(&a, SIZE_MAX));
    assert_int_equal(atomic_load(&budget.used), 0);
}

static struct flue_budget shared;
static struct flue_account account;

static void *charge_and_release(void *arg)
{
    for (unsigned i = 0; i < 20000; i++) {
        size_t bytes = i % 7 + 1;

        if (i % 3 == 0)
            flue_account_charge_always(&account, bytes);
        else if (!flue_account_charge(&account, bytes))
            continue;
        flue_account_release(&account, bytes);
    }
    return NULL;
}

static void balances_over_threads(void **state)
{
    pthread_t threads[4];

    flue_budget_init(&shared, 10);
    flue_account_init(&account, &shared, "x", 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, charge_and_release, NULL), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&shared.used), 0);
    assert_int_equal(atomic_load(&account.used), 0);
}

static void default_is_sane(void **state)
{
    int64_t bytes = flue_budget_default_bytes();

    assert_true(bytes > 1 << 20 && bytes < INT64_MAX / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(soft_and_hard),
                                       cmocka_unit_test(balances_over_threads),
                                       cmocka_unit_test(default_is_sane)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
