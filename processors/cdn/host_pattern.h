/* host_pattern.h: what a host's name says about its place: `edge-{pop:alpha3}{site:digits?}-{node}.
 * {region}.cdn.example.net`.
 *
 * No regular expressions: literal text and groups `{name:class}`, matched from left to right without
 * ever going back, the whole name, letters without case. Classes: alpha2, alpha3, alpha4 (exactly so
 * many letters), alnum4, digits, label (no dot; the default), name (letters, digits, -). `?` behind
 * the class: may be missing. `{name:=other}`: the same text again. A group without a name, or with
 * one that is no place (`node`), is only matched. What could be read in two ways is refused when the
 * configuration is checked.
 */
#ifndef FLUE_CDN_HOST_PATTERN_H
#define FLUE_CDN_HOST_PATTERN_H

#include "processors/cdn/place.h"

#define FLUE_HOST_PATTERN_PARTS 32

struct flue_host_pattern {
    struct flue_host_part {
        uint8_t class;
        bool optional, literal, same;
        struct flue_bytes text; /* literal: lower-case; else the group's name */
        enum flue_place_attribute attribute;
        uint8_t of; /* same: the part whose text must come again */
    } parts[FLUE_HOST_PATTERN_PARTS];
    size_t count;
};
/* Borrows `text`, which must be as long-lived. */
enum flue_code flue_host_pattern_compile(const char *text, struct flue_host_pattern *out,
                                         struct flue_error *error);
/* `found[attribute]` borrows from `host`; untouched where the pattern names no such attribute. */
bool flue_host_pattern_match(const struct flue_host_pattern *pattern, struct flue_bytes host,
                             struct flue_bytes found[FLUE_PLACE_ATTRIBUTES]);

#endif
