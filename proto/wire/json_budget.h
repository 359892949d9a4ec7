/* json_budget.h: jansson with a byte budget, for JSON that came from the network.
 *
 * jansson's scanner reads beyond its buffer when an allocation fails in the middle of a string
 * (2.14: lex_save ignores the failure), so a budget cannot be enforced by refusing an allocation.
 * It is enforced before: what a text can need at most follows from its brackets, colons, commas and
 * quotes, and a text that could need more than the budget is refused unread. An ordinary object
 * with two members needs about 20 times its text, a text that is mostly one long string 4 times.
 *
 * For the same reason a text is parsed only while as much memory as it can need stands in reserve
 * (address space, not touched): a malloc that fails is made good from there, and the text refused
 * (FLUE_NO_MEMORY) once jansson is done with it.
 *
 * jansson knows one pair of allocation functions per process; ours count, on the budget of the
 * calling thread, and tests hold the bound against the count. Everything that was allocated under a
 * budget must be freed (json_decref) before flue_json_end, on the same thread.
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
    bool starved;     /* an allocation failed */
    uint8_t *reserve; /* while a text is parsed: what is used then */
    size_t reserve_left, reserve_size;
    struct flue_json_budget *outer; /* budgets nest */
};

void flue_json_begin(struct flue_json_budget *budget, size_t limit);
void flue_json_end(struct flue_json_budget *budget);

/* Parses the whole of `text` (one value, UTF-8, no duplicate check) within the budget that is
 * begun. Nesting over FLUE_JSON_DEPTH is refused before jansson sees it. FLUE_INVALID with line and
 * column, FLUE_TOO_LARGE when it might need more than the budget has left. */
size_t flue_json_bound(struct flue_bytes text); /* bytes that parsing may need at most */
enum flue_code flue_json_parse(struct flue_json_budget *budget, struct flue_bytes text,
                               json_t **out, struct flue_error *error);

#endif
