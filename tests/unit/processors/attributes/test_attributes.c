/* The same edits under the key `actions`. */
#include "tests/unit/processors/resource/actions_test.h"

extern const struct flue_component flue_processor_attributes;

static void acts_on_the_resource(void **state)
{
    assert_string_equal(
        edit(&flue_processor_attributes,
             "actions: [{key: a, value: x, action: insert}, {key: b, action: delete}]",
             ATTRIBUTE("b", "1") "," ATTRIBUTE("c", "2")),
        "c=2\na=x\n");
}

static void mistakes_stand_under_actions(void **state)
{
    assert_true(mistakes_of(&flue_processor_attributes, "actions: [{action: hash}]", "actions[0]") >
                0);
    assert_true(mistakes_of(&flue_processor_attributes,
                            "{include: {match_type: strict}, actions: [{key: a, action: delete}]}",
                            "include") > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acts_on_the_resource),
        cmocka_unit_test(mistakes_stand_under_actions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
