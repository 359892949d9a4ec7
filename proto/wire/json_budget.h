/* json_budget.h: jansson with a byte budget, for JSON that came from the network.
 *
 * jansson knows one pair of allocation functions per process. Ours charge the budget of the calling
 * thread, and refuse (jansson then fails as if memory was short) when it is used up. Without a
 * budget on the thread they are malloc and free. Everything that was allocated under a budget must
 * be freed (json_decref) before flue_json_end, on the same thread.
 */
#ifndef PROTO_WIRE_JSON_BUDGET_H
#define PROTO_WIRE_JSON_BUDGET_H

#include <jansson.h>
#include "collector/base/bytes.h"
#include "collector/base/error.h"

/* design.md, limits: nesting of decoded messages. */
#define FLUE_JSON_DEPTH 32

struct flue_json_budget {
    size_t limit, used, peak;
    bool exceeded;                   /* an allocation was refused for the limit */
    struct flue_json_budget *outer; /* budgets nest */
};

void flue_json_begin(struct flue_json_budget *budget, size_t limit);
void flue_json_end(struct flue_json_budget *budget);

/* Parses the whole of `text` (one value, UTF-8, no duplicate check) within the budget that is begun.
 * Nesting over FLUE_JSON_DEPTH is refused before jansson sees it. FLUE_INVALID with line and column,
 * FLUE_TOO_LARGE when the budget is used up. */
enum flue_code flue_json_parse(struct flue_json_budget *budget, struct flue_bytes text,
                               json_t **out, struct flue_error *error);

/* Standard or URL-safe alphabet, with or without padding, as protobuf's JSON mapping asks readers to
 * take. `out` holds flue_base64_room(text.size). False on anything else. */
static inline size_t flue_base64_room(size_t text_size)
{
    return text_size / 4 * 3 + 3;
}
bool flue_base64_decode(struct flue_bytes text, uint8_t *out, size_t *out_size);
/* Standard alphabet with padding; `out` holds (size + 2) / 3 * 4 characters, no NUL. */
void flue_base64_encode(struct flue_bytes bytes, char *out);

#endif
