/* A configuration file: parsed, printed, read again to the same; merged, expanded, bound to the
 * fields of every component. Files and the environment are not read: "${" references to them are
 * refused before. */
#include "collector/service/configuration.h"
#include "config/print.h"
#include "tests/fuzz/fuzz.h"

static void print(const struct flue_node *node, struct flue_buffer *out)
{
    flue_buffer_init(out, (size_t)32 << 20);
    flue_node_print_yaml(node, false, out);
    FUZZ_CHECK(!out->failed, "over 32 MiB");
}

static void round_trip(struct flue_bytes in)
{
    struct flue_arena arena;
    struct flue_check check;
    struct flue_buffer first, second, json;

    flue_arena_init(&arena, (size_t)64 << 20, 0);
    flue_check_init(&check, &arena);
    struct flue_tree tree = {.arena = &arena};
    struct flue_node *node = flue_yaml_parse(&tree, "c.yaml", in, NULL, &check);
    FUZZ_CHECK(node || check.mistakes, "refused without a reason");
    if (node) {
        flue_node_expand(&tree, node, &check);
        print(node, &first);
        flue_buffer_init(&json, (size_t)32 << 20);
        flue_node_print_json(node, true, &json);
        struct flue_check none;
        flue_check_init(&none, &arena);
        struct flue_tree fresh = {.arena = &arena};
        struct flue_node *again =
            flue_yaml_parse(&fresh, "d.yaml", flue_buffer_bytes(&first), NULL, &none);
        FUZZ_CHECK(again, none.count ? none.items[0].text : first.data);
        struct flue_check ignored;
        flue_check_init(&ignored, &arena);
        flue_node_expand(&fresh, again, &ignored); /* "$$" is "$" again */
        print(again, &second);
        FUZZ_CHECK(flue_bytes_equal(flue_buffer_bytes(&first), flue_buffer_bytes(&second)),
                   second.data ? second.data : "");
        flue_buffer_destroy(&first);
        flue_buffer_destroy(&second);
        flue_buffer_destroy(&json);
    }
    flue_arena_destroy(&arena);
}

static void load(struct flue_bytes in)
{
    struct flue_configuration *configuration = NULL;
    struct flue_error error = {0};
    struct flue_buffer text;
    char *source = malloc(in.size + 6);

    FUZZ_CHECK(source, "memory");
    memcpy(source, "yaml:", 5);
    if (in.size)
        memcpy(source + 5, in.data, in.size);
    source[5 + in.size] = 0;
    const char *const configs[] = {source};
    const struct flue_sources sources = {.configs = configs, .config_count = 1};
    enum flue_code code =
        flue_configuration_load(&sources, flue_components, &configuration, &error);
    FUZZ_CHECK(code == FLUE_OK || code == FLUE_NO_MEMORY, error.text);
    if (configuration) {
        flue_buffer_init(&text, (size_t)32 << 20);
        flue_check_print(&configuration->check, &text);
        if (configuration->root)
            flue_node_print_yaml(configuration->root, true, &text);
        flue_buffer_destroy(&text);
    }
    flue_configuration_destroy(configuration);
    free(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(data, size);
    if (memmem(data, size, "file:", 5) || memmem(data, size, "_file", 5))
        return 0;
    round_trip(flue_bytes(data, size));
    if (!memchr(data, 0, size))
        load(flue_bytes(data, size));
    return fuzz_end();
}
