/* image.h: name, tag and digest of an image reference, by the distribution project's grammar.
 * Pure; borrows. */
#ifndef FLUE_KUBERNETES_IMAGE_H
#define FLUE_KUBERNETES_IMAGE_H

#include "collector/base/bytes.h"

struct flue_kube_image {
    struct flue_bytes name;   /* with registry, without tag and digest */
    struct flue_bytes tag;    /* empty: none was given ("latest" is a tag only where it is written
                               * or neither tag nor digest are) */
    struct flue_bytes digest; /* "sha256:..." */
};
/* False (and all empty) for what is no reference: a bare digest or image id, an empty string. */
bool flue_kube_image_read(struct flue_bytes reference, struct flue_kube_image *out);
/* "registry/name@sha256:..." of a status' imageID (docker-pullable:// and the like taken off);
 * empty where it is only a local image id. */
struct flue_bytes flue_kube_image_digest(struct flue_bytes image_id);

#endif
