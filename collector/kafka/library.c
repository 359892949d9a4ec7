/* library.c: see library.h. */
#include "collector/kafka/library.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#define SONAME "librdkafka.so.1"

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
#define ROW(name) {#name, offsetof(struct flue_kafka, name)},
    FLUE_KAFKA_FUNCTIONS(ROW)
#undef ROW
};

static struct flue_kafka table;
static bool loaded;

const struct flue_kafka *flue_kafka_load_from(const char *name, struct flue_error *error)
{
    struct flue_kafka found;
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);

    if (!library) {
        const char *why = dlerror();
        flue_fail(error, FLUE_IO,
                  "Kafka needs librdkafka, and it cannot be loaded (%s): install librdkafka1 (apt) "
                  "or librdkafka (apk, dnf)",
                  why ? why : name);
        return NULL;
    }
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *symbol = dlsym(library, functions[i].name);
        if (!symbol) {
            flue_fail(error, FLUE_IO, "%s has no function %s: librdkafka 2.0 or newer is needed",
                      name, functions[i].name);
            dlclose(library);
            return NULL;
        }
        memcpy((char *)&found + functions[i].offset, &symbol, sizeof symbol);
    }
    table = found;
    return &table;
}

const struct flue_kafka *flue_kafka_load(struct flue_error *error)
{
    if (!loaded)
        loaded = flue_kafka_load_from(SONAME, error) != NULL;
    return loaded ? &table : NULL;
}
