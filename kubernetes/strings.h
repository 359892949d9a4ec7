/* strings.h: text that many records share (namespaces, nodes, images, label values), kept once.
 *
 * Counted by the one writer; readers may look at a string as long as they may look at a record that
 * holds it (epoch.h). A string never changes. */
#ifndef FLUE_KUBERNETES_STRINGS_H
#define FLUE_KUBERNETES_STRINGS_H

#include "collector/base/bytes.h"

struct flue_kube_string {
    struct flue_kube_string *next; /* in its bucket */
    uint32_t refs, size;
    uint64_t hash;
    char text[];
};

struct flue_kube_strings {
    struct flue_kube_string **buckets;
    size_t mask, count, bytes;
};

static inline struct flue_bytes flue_kube_text(const struct flue_kube_string *string)
{
    return string ? flue_bytes(string->text, string->size) : flue_bytes(NULL, 0);
}

/* A reference of the string with this text; NULL for an empty one; sets *starved without memory. */
struct flue_kube_string *flue_kube_string_get(struct flue_kube_strings *strings,
                                              struct flue_bytes text, bool *starved);
void flue_kube_string_drop(struct flue_kube_strings *strings, struct flue_kube_string *string);
void flue_kube_strings_destroy(struct flue_kube_strings *strings);

#endif
