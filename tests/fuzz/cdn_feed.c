/* Tables of networks in every form: whatever the bytes are, what is read are prefixes with places
 * that have their form. */
#include "processors/cdn/feed.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flue_prefixes *prefixes;
    struct flue_error error = {0};
    struct flue_feed feed;

    fuzz_begin(data, size);
    FUZZ_CHECK(flue_feed_init(&feed, 10000, &error) == FLUE_OK, error.text);
    enum flue_code code = flue_feed_read(&feed, flue_bytes(data, size), &error);
    if (code != FLUE_OK)
        fuzz_refused(code, &error);
    for (size_t i = 0; code == FLUE_OK && i < feed.count; i++) {
        const struct flue_place *place = &feed.places.rows[feed.items[i].place];
        for (int k = 0; k < FLUE_PLACE_ATTRIBUTES; k++) {
            char again[FLUE_PLACE_VALUE_MAX];
            size_t length;
            FUZZ_CHECK(place->values[k] < feed.places.text_count, "a text that is not there");
            FUZZ_CHECK(place->values[k] <= FLUE_PLACE_RETRACTED ||
                           flue_place_normalize((enum flue_place_attribute)k,
                                                feed.places.texts[place->values[k]], again,
                                                &length),
                       "a value without its form");
        }
    }
    if (code == FLUE_OK) {
        FUZZ_CHECK(flue_prefixes_build(feed.items, feed.count, FLUE_PLACE_DISPUTED, NULL, NULL,
                                       &prefixes, &error) == FLUE_OK,
                   error.text);
        for (size_t i = 0; i < flue_prefixes_count(prefixes); i++) /* each holds its own address */
            FUZZ_CHECK(flue_prefixes_find(prefixes, &feed.items[i].address) < feed.places.row_count,
                       "a place that is not there");
        flue_prefixes_destroy(prefixes);
    }
    flue_feed_destroy(&feed);
    return fuzz_end();
}
