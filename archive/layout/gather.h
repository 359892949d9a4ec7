/* gather.h: profiles of many OTLP payloads sorted into groups; each group becomes one message with
 * a dictionary of its own.
 *
 * Rows of equal content are there once in a group, whatever payload they came from: a service that
 * repeats its stacks costs its samples alone. What is written is a function of what was added and
 * in which order. A group may be taken at any time and begins anew with what is added next.
 *
 * Memory is charged to `account` over its limit too (data already taken must be able to leave);
 * flue_gather_held says how much, and the caller takes groups to bound it. One thread at a time.
 */
#ifndef FLUE_ARCHIVE_GATHER_H
#define FLUE_ARCHIVE_GATHER_H

#include "collector/base/payload.h"

#define FLUE_GATHER_NONE SIZE_MAX

struct flue_gather;
struct flue_otlp_profile;
struct flue_otlp_dictionary;

struct flue_gather *flue_gather_new(struct flue_account *account);
void flue_gather_destroy(struct flue_gather *gather); /* NULL: fine */

/* Which group a profile belongs to: a number below 2^20 that the caller gives meaning to, or
 * FLUE_GATHER_NONE to leave it out. */
typedef size_t (*flue_gather_choose)(void *arg, const struct flue_payload *payload,
                                     const struct flue_otlp_dictionary *dictionary,
                                     const struct flue_otlp_profile *profile);
/* `payload` is of form OTLP and only read. On failure the gather is of no more use. */
enum flue_code flue_gather_add(struct flue_gather *gather, const struct flue_payload *payload,
                               flue_gather_choose choose, void *arg, struct flue_error *error);

struct flue_gathered {
    size_t size; /* of its message, about */
    size_t held; /* memory */
    uint64_t profiles, samples;
};
size_t flue_gather_groups(const struct flue_gather *gather);
struct flue_gathered flue_gather_look(const struct flue_gather *gather, size_t group);
size_t flue_gather_held(const struct flue_gather *gather);
/* The group's message (ProfilesData, layout 1.10), one reference; NULL with FLUE_OK when it holds
 * no profile. */
enum flue_code flue_gather_take(struct flue_gather *gather, size_t group, struct flue_block **out,
                                struct flue_error *error);

#endif
