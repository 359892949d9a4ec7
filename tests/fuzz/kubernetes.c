/* What an API server answers: bodies of lists and watches in pieces, objects, refusals; the store
 * must find whatever it has taken, and nothing by another's key. */
#include "kubernetes/cgroup.h"
#include "kubernetes/cut.h"
#include "kubernetes/image.h"
#include "kubernetes/store.h"
#include "tests/fuzz/fuzz.h"

struct body {
    struct flue_kube_store *store;
    struct flue_kube_object *object;
    struct flue_bytes all;
    bool json;
    unsigned events;
};

static void look(struct body *body, enum flue_kube_kind kind)
{
    const struct flue_kube_object *object = body->object;
    const struct flue_kube_record *record, *owner = NULL;

    FUZZ_CHECK(object->container_count <= FLUE_KUBE_MAX_CONTAINERS &&
                   object->address_count <= FLUE_KUBE_MAX_ADDRESSES &&
                   object->label_count <= FLUE_KUBE_MAX_LABELS,
               "counts");
    if (!flue_kube_store_put(body->store, kind, object, dice(2)))
        return;
    flue_kube_enter(flue_kube_store_epochs(body->store), 0);
    if (kind != FLUE_KUBE_POD) {
        record = flue_kube_find_object(body->store, kind, object->namespace, object->name);
        FUZZ_CHECK(!record || flue_bytes_equal(
                                  flue_kube_record_text(record, record->name, record->name_size),
                                  object->name),
                   "an object of another name");
    } else {
        record = flue_kube_find_uid(body->store, object->uid);
        if (record && record->uid_size == object->uid.size)
            FUZZ_CHECK(
                flue_bytes_equal(flue_kube_record_text(record, record->uid, record->uid_size),
                                 object->uid),
                "a pod of another uid");
        for (unsigned i = 0; i < object->address_count; i++)
            if (flue_kube_find_address(body->store, object->addresses[i], 1, 2, &owner) ==
                FLUE_KUBE_ONE)
                FUZZ_CHECK(owner->start_ns <= 1, "a pod that began later");
    }
    flue_kube_leave(flue_kube_store_epochs(body->store), 0);
    if (dice(4) == 0)
        flue_kube_store_delete(body->store, kind, object);
}

static bool take(void *arg, enum flue_kube_event event, struct flue_bytes bytes)
{
    struct body *body = arg;
    enum flue_kube_kind kind = (enum flue_kube_kind)dice(FLUE_KUBE_KINDS);
    struct flue_kube_list_meta meta;
    struct flue_kube_status status;
    struct flue_error error = {0};

    body->events++;
    FUZZ_CHECK(bytes.size <= body->all.size, "more than came");
    if (event == FLUE_KUBE_LIST_META) {
        if (flue_kube_list_meta_read(bytes, body->json, &meta))
            flue_kube_list_meta_done(&meta);
        return true;
    }
    if (event == FLUE_KUBE_ERROR) {
        if (flue_kube_status_read(bytes, body->json, &status) == FLUE_OK)
            flue_kube_status_done(&status);
        return true;
    }
    enum flue_code code = body->json ? flue_kube_object_read_json(bytes, kind, body->object, &error)
                                     : flue_kube_object_read(bytes, kind, body->object, &error);
    if (code) {
        fuzz_refused(code, &error);
        return true;
    }
    look(body, kind);
    flue_kube_object_done(body->object);
    return true;
}

/* In pieces of at most `most` bytes; 0: in one. How many events came of it. */
static unsigned feed(struct body *body, enum flue_kube_form form, size_t most)
{
    struct flue_error error = {0};
    struct flue_bytes rest = body->all;
    struct flue_kube_cut cut;
    enum flue_code code = FLUE_OK;

    body->json = form == FLUE_KUBE_JSON_LIST || form == FLUE_KUBE_JSON_WATCH;
    body->events = 0;
    flue_kube_cut_init(&cut, form, take, body);
    while (!code && rest.size) {
        size_t size = most ? 1 + dice((uint32_t)most) : rest.size;
        struct flue_bytes piece = flue_bytes_first(rest, size < rest.size ? size : rest.size);
        code = flue_kube_cut_feed(&cut, piece, &error);
        rest = flue_bytes_from(rest, piece.size);
    }
    if (code == FLUE_INVALID)
        fuzz_refused(code, &error);
    if (!code)
        (void)flue_kube_cut_complete(&cut);
    flue_kube_cut_destroy(&cut);
    return body->events;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct flue_kube_object object; /* large */
    const struct flue_kube_store_spec spec = {.limit = 8 << 20, .index_names = true};
    struct body body = {.object = &object, .all = flue_bytes(data, size)};
    struct flue_kube_status status;
    struct flue_kube_cgroup cgroup;
    struct flue_kube_image image;

    fuzz_begin(data, size);
    FUZZ_CHECK(flue_kube_store_new(&spec, &body.store, NULL) == FLUE_OK, "memory");
    for (unsigned form = 0; form < 4; form++) {
        unsigned whole = feed(&body, (enum flue_kube_form)form, 0);
        FUZZ_CHECK(feed(&body, (enum flue_kube_form)form, 1 + dice(300)) == whole, "pieces");
    }
    for (unsigned json = 0; json < 2; json++) {
        body.json = json;
        take(&body, FLUE_KUBE_ADDED, body.all);
        if (flue_kube_status_read(body.all, json, &status) == FLUE_OK)
            flue_kube_status_done(&status);
    }
    flue_kube_store_tick(body.store);
    flue_kube_store_destroy(body.store);
    flue_kube_cgroup_file(body.all, &cgroup);
    flue_kube_image_read(body.all, &image);
    flue_kube_image_digest(body.all);
    (void)flue_kube_time(body.all);
    return fuzz_end();
}
