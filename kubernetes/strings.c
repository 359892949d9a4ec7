/* strings.c: see strings.h. */
#include "kubernetes/strings.h"
#include <stdlib.h>
#include "collector/base/hash.h"

static bool grow(struct flue_kube_strings *strings)
{
    size_t room = strings->buckets ? (strings->mask + 1) * 2 : 256;
    struct flue_kube_string **buckets = calloc(room, sizeof(void *));

    if (!buckets)
        return false;
    for (size_t i = 0; strings->buckets && i <= strings->mask; i++) {
        struct flue_kube_string *at = strings->buckets[i], *next;
        for (; at; at = next) {
            next = at->next;
            at->next = buckets[at->hash & (room - 1)];
            buckets[at->hash & (room - 1)] = at;
        }
    }
    free(strings->buckets);
    strings->buckets = buckets;
    strings->mask = room - 1;
    return true;
}

struct flue_kube_string *flue_kube_string_get(struct flue_kube_strings *strings,
                                              struct flue_bytes text, bool *starved)
{
    if (!text.size)
        return NULL;
    uint64_t hash = flue_hash(text);
    if (!strings->buckets || strings->count > strings->mask)
        if (!grow(strings) && !strings->buckets) {
            *starved = true;
            return NULL;
        }
    for (struct flue_kube_string *at = strings->buckets[hash & strings->mask]; at; at = at->next)
        if (at->hash == hash && flue_bytes_equal(flue_kube_text(at), text)) {
            at->refs++;
            return at;
        }
    struct flue_kube_string *made = malloc(sizeof *made + text.size + 1);
    if (!made) {
        *starved = true;
        return NULL;
    }
    *made = (struct flue_kube_string){strings->buckets[hash & strings->mask], 1,
                                      (uint32_t)text.size, hash};
    memcpy(made->text, text.data, text.size);
    made->text[text.size] = 0;
    strings->buckets[hash & strings->mask] = made;
    strings->count++;
    strings->bytes += sizeof *made + text.size + 1;
    return made;
}

void flue_kube_string_drop(struct flue_kube_strings *strings, struct flue_kube_string *string)
{
    if (!string || --string->refs)
        return;
    struct flue_kube_string **at = &strings->buckets[string->hash & strings->mask];
    while (*at != string)
        at = &(*at)->next;
    *at = string->next;
    strings->count--;
    strings->bytes -= sizeof *string + string->size + 1;
    free(string);
}

void flue_kube_strings_destroy(struct flue_kube_strings *strings)
{
    for (size_t i = 0; strings->buckets && i <= strings->mask; i++)
        for (struct flue_kube_string *at = strings->buckets[i], *next; at; at = next) {
            next = at->next;
            free(at);
        }
    free(strings->buckets);
    memset(strings, 0, sizeof *strings);
}
