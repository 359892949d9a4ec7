/* multipart/form-data: the first line of the input is the content type, the rest the body. */
#include "receivers/pyroscope/multipart.h"
#include "tests/fuzz/fuzz.h"

static void inside(struct flue_bytes part, struct flue_bytes of)
{
    FUZZ_CHECK(part.size == 0 || (part.data >= of.data && part.size <= of.size &&
                                  (size_t)(part.data - of.data) <= of.size - part.size),
               "a part lies outside of the body");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_bytes in = flue_bytes(data, size);
    static struct flue_multipart form;
    struct flue_error error = {0};

    fuzz_begin(data, size);
    size_t line = flue_bytes_find(in, '\n');
    struct flue_bytes type = flue_bytes_first(in, line);
    struct flue_bytes body = line == SIZE_MAX ? flue_bytes(data, 0) : flue_bytes_from(in, line + 1);
    enum flue_code code = flue_multipart_read(type, body, &form, &error);
    if (code != FLUE_OK) {
        fuzz_refused(code, &error);
        return fuzz_end();
    }
    FUZZ_CHECK(form.count <= FLUE_MULTIPART_MAX_PARTS, "too many parts");
    for (size_t i = 0; i < form.count; i++) {
        inside(form.parts[i].content, body);
        inside(form.parts[i].content_type, body);
        FUZZ_CHECK(form.parts[i].name.size > 0, "a part without a name");
    }
    (void)flue_multipart_part(&form, "profile");
    return fuzz_end();
}
