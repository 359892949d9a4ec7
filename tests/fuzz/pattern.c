/* Patterns of the processors resource and attributes, and texts that become one element of a path.
 */
#include "archive/layout/key.h"
#include "collector/pipeline/actions.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct flue_pattern pattern;
    char element[FLUE_KEY_ELEMENT_ROOM];
    struct flue_error error = {0};

    fuzz_begin(data, size);
    char *text = malloc(size + 1);
    FUZZ_CHECK(text, "memory");
    memcpy(text, data, size);
    text[size] = 0;
    enum flue_code code = flue_pattern_translate(text, &pattern, &error);
    if (code != FLUE_OK)
        fuzz_refused(code, &error);
    else
        FUZZ_CHECK(pattern.groups < FLUE_PATTERN_GROUPS &&
                       memchr(pattern.text, 0, sizeof pattern.text),
                   "its bounds");
    free(text);

    size_t length = flue_key_element(flue_bytes(data, size), element);
    FUZZ_CHECK(length > 0 && length < sizeof element && element[length] == 0, element);
    FUZZ_CHECK(!strchr(element, '/') && element[0] != '.', element);
    return fuzz_end();
}
