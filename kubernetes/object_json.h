/* object_json.h: the JSON reader's half of object.h; for the files of this folder only. */
#ifndef FLUE_KUBERNETES_OBJECT_JSON_H
#define FLUE_KUBERNETES_OBJECT_JSON_H

#include "kubernetes/object.h"

void flue_kube_object_clear(struct flue_kube_object *object);
/* A container of the same name, or a new one; NULL over the limit. */
struct flue_kube_container_view *flue_kube_object_container(struct flue_kube_object *object,
                                                            struct flue_bytes name);
enum flue_code flue_kube_status_read_json(struct flue_bytes json, struct flue_kube_status *out);

#endif
