/* queue.c: looks into the folder of a file_storage: flue queue ls | cat | verify DIR, and replay
 * (queue_replay.c).
 *
 * Reads only and takes no lock, so each may run beside the daemon that holds the folder; what is
 * then shown was true a moment ago, and `verify` may find the last records half written, which it
 * does not count as damage.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collector/base/clock.h"
#include "collector/commands/command.h"
#include "collector/commands/queue_replay.h"
#include "collector/storage/inspect.h"

#define U (unsigned long long)

static const char usage[] = "ls DIR | cat DIR [RECORD] | verify DIR | replay DIR [--to URL]";
static const char *const own[] = {"--to", NULL};

static const char *age_of(uint64_t ns, char *out)
{
    uint64_t now = flue_wall_ns();
    if (!ns)
        return "-";
    flue_format_duration(now > ns ? (int64_t)((now - ns) / 1000000000 * 1000000000) : 0, out);
    return out;
}

static const char *state_of(const struct flue_inspected_segment *segment)
{
    return segment->broken_header   ? "no header"
           : segment->broken_footer ? "broken footer"
           : segment->sealed        ? "sealed"
                                    : "open";
}

static int fail(const struct flue_error *error)
{
    fprintf(stderr, "flue queue: %s\n", error->text);
    return FLUE_EXIT_FAILED;
}

/* ---- ls -------------------------------------------------------------------------------------- */

static bool list_segment(void *arg, struct flue_inspection *inspection,
                         const struct flue_inspected_segment *segment)
{
    struct flue_buffer *out = arg;
    flue_buffer_printf(out, "%016llx  %-13s %9u %9u %14llu %14llu", U segment->number,
                       state_of(segment), segment->records, segment->owed, U segment->bytes,
                       U segment->file_size);
    if (segment->damaged)
        flue_buffer_printf(out, "  %u damaged", segment->damaged);
    flue_buffer_byte(out, '\n');
    return true;
}

static int list(const char *directory)
{
    struct flue_inspection inspection;
    struct flue_error error;
    struct flue_buffer segments;
    char text[32], name[4 * FLUE_STORAGE_NAME + 1];
    flue_buffer_init(&segments, (size_t)256 << 20);
    enum flue_code code =
        flue_storage_inspect(directory, &inspection, list_segment, &segments, &error);
    if (!code) {
        printf("%-32s %9s %9s %12s %14s %10s %9s\n", "QUEUE", "RECORDS", "PROFILES", "SAMPLES",
               "BYTES", "OLDEST", "SEGMENTS");
        for (unsigned i = 0; i < inspection.queue_count; i++) {
            const struct flue_inspected_queue *queue = inspection.queues[i];
            printf("%-32s %9llu %9llu %12llu %14llu %10s %9llu\n",
                   flue_printable(flue_bytes_of(queue->name), name, sizeof name),
                   U queue->lag.records, U queue->lag.counts.profiles, U queue->lag.counts.samples,
                   U queue->lag.bytes, age_of(queue->lag.oldest_ns, text), U queue->segments);
        }
        printf("\n%-16s  %-13s %9s %9s %14s %14s\n%s", "SEGMENT", "STATE", "RECORDS", "OWED",
               "BYTES", "ON DISK", segments.data ? segments.data : "");
        if (inspection.notes || inspection.set_aside)
            printf("\n%llu notes, %llu files set aside as damaged\n", U inspection.notes,
                   U inspection.set_aside);
    }
    flue_buffer_destroy(&segments);
    flue_inspection_free(&inspection);
    return code ? fail(&error) : FLUE_EXIT_OK;
}

/* ---- cat ------------------------------------------------------------------------------------- */

struct catting {
    bool one;
    uint64_t record;
    bool found;
    enum flue_code code;
    struct flue_error error;
};

/* To standard output for the list, to standard error where the body follows on standard output. */
static void describe(FILE *to, const struct flue_inspection *inspection,
                     const struct flue_inspected_segment *segment, uint32_t index)
{
    const struct flue_storage_row *row = &segment->rows[index];
    char time[32], name[4 * FLUE_STORAGE_NAME + 1];
    fprintf(to, "%016llx ", U(segment->number << 16 | index));
    if (row->flags) {
        fprintf(to, "%s\n", row->flags == FLUE_ROW_DAMAGED ? "damaged" : "never acknowledged");
        return;
    }
    flue_format_time(row->time_ns, time);
    fprintf(to, "%s profiles=%llu samples=%llu bytes=%llu head=%u body=%u owed_by=", time,
            U row->profiles, U row->samples, U row->bytes, row->head_size, row->body_size);
    const char *comma = "";
    for (uint64_t left = row->owing; left; left &= left - 1) {
        const char *queue = inspection->queues[__builtin_ctzll(left)]->name;
        fprintf(to, "%s%s", comma, flue_printable(flue_bytes_of(queue), name, sizeof name));
        comma = ",";
    }
    fprintf(to, "%s\n", row->owing ? "" : "nobody");
}

/* Runs of printable bytes, a line each: the names and values of the origin. */
static void print_head(struct flue_bytes head)
{
    char text[400];
    for (size_t i = 0; i < head.size;) {
        size_t from = i;
        while (i < head.size && head.data[i] >= 0x20 && head.data[i] < 0x7f)
            i++;
        if (i - from >= 2)
            fprintf(stderr, "  %s\n",
                    flue_printable(flue_bytes(head.data + from, i - from), text, sizeof text));
        while (i < head.size && (head.data[i] < 0x20 || head.data[i] >= 0x7f))
            i++;
    }
}

static bool cat_segment(void *arg, struct flue_inspection *inspection,
                        const struct flue_inspected_segment *segment)
{
    struct catting *catting = arg;
    uint32_t index = (uint32_t)(catting->record & 0xffff);
    if (!catting->one) {
        for (uint32_t i = 0; i < segment->records; i++)
            describe(stdout, inspection, segment, i);
        return true;
    }
    if (segment->number != catting->record >> 16 || index >= segment->records)
        return true;
    struct flue_block *head, *body;
    catting->found = true;
    describe(stderr, inspection, segment, index);
    catting->code = flue_inspect_record(inspection, segment, index, &head, &body, &catting->error);
    if (catting->code)
        return false;
    print_head(flue_block_bytes(head));
    if (fwrite(body->data, 1, body->size, stdout) != body->size)
        catting->code = flue_fail(&catting->error, FLUE_IO, "cannot write to standard output");
    flue_block_unref(head);
    flue_block_unref(body);
    return false;
}

static int cat(const char *directory, const char *record)
{
    struct catting catting = {.one = record != NULL};
    struct flue_inspection inspection;
    struct flue_error error;
    char *end;
    if (record) {
        catting.record = strtoull(record, &end, 16);
        if (end == record || *end) {
            fprintf(stderr,
                    "flue queue cat: \"%s\" is no record: they are the hexadecimal numbers "
                    "that flue queue cat %s lists\n",
                    record, directory);
            return FLUE_EXIT_USAGE;
        }
    }
    enum flue_code code =
        flue_storage_inspect(directory, &inspection, cat_segment, &catting, &error);
    flue_inspection_free(&inspection);
    if (code)
        return fail(&error);
    if (catting.code)
        return fail(&catting.error);
    if (record && !catting.found) {
        fprintf(stderr, "flue queue: there is no record %s in %s\n", record, directory);
        return FLUE_EXIT_FAILED;
    }
    return FLUE_EXIT_OK;
}

/* ---- verify ---------------------------------------------------------------------------------- */

struct verifying {
    uint64_t records, bytes, damaged;
};

static bool verify_segment(void *arg, struct flue_inspection *inspection,
                           const struct flue_inspected_segment *segment)
{
    struct verifying *verifying = arg;
    struct flue_error error;
    if (segment->broken_header || segment->broken_footer) {
        printf("%016llx%s: %s\n", U segment->number, FLUE_STORAGE_SUFFIX,
               segment->broken_header ? "both copies of the header are broken"
                                      : "the footer is broken; the records were found by a scan");
        verifying->damaged++;
    }
    for (uint32_t i = 0; i < segment->records; i++) {
        const struct flue_storage_row *row = &segment->rows[i];
        if (row->flags == FLUE_ROW_LOST)
            continue;
        verifying->records++;
        verifying->bytes += (uint64_t)row->head_size + row->body_size;
        if (flue_inspect_record(inspection, segment, i, NULL, NULL, &error)) {
            printf("%s\n", error.text);
            verifying->damaged++;
        }
    }
    return true;
}

static int verify(const char *directory)
{
    struct verifying verifying = {0};
    struct flue_inspection inspection;
    struct flue_error error;
    enum flue_code code =
        flue_storage_inspect(directory, &inspection, verify_segment, &verifying, &error);
    verifying.damaged += inspection.broken_entries;
    if (inspection.broken_entries)
        printf("finished: %llu broken entries: what they say is sent again\n",
               U inspection.broken_entries);
    if (inspection.broken_finished) {
        printf("finished: its header is broken: what was sent is sent again\n");
        verifying.damaged++;
    }
    if (!code)
        printf("%llu segments, %llu records, %llu bytes: %llu damaged\n", U inspection.segments,
               U verifying.records, U verifying.bytes, U verifying.damaged);
    flue_inspection_free(&inspection);
    if (code)
        return fail(&error);
    return verifying.damaged ? FLUE_EXIT_FAILED : FLUE_EXIT_OK;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int queue(const struct flue_arguments *arguments)
{
    const char *word = arguments->rest_count ? arguments->rest[0] : "";
    size_t more = arguments->rest_count > 1 ? arguments->rest_count - 1 : 0;
    if (strcmp(word, "ls") == 0 && more == 1)
        return list(arguments->rest[1]);
    if (strcmp(word, "cat") == 0 && (more == 1 || more == 2))
        return cat(arguments->rest[1], more == 2 ? arguments->rest[2] : NULL);
    if (strcmp(word, "verify") == 0 && more == 1)
        return verify(arguments->rest[1]);
    if (strcmp(word, "replay") == 0 && more == 1)
        return flue_queue_replay(arguments->rest[1], flue_argument_value(arguments, "--to"));
    fprintf(stderr, "flue queue: what is to be done?\nusage: flue queue %s\n", usage);
    return FLUE_EXIT_USAGE;
}

const struct flue_command flue_command_queue = {
    .name = "queue",
    .summary = "looks into the folder of a file_storage; sends again what was set aside",
    .usage = usage,
    .options = FLUE_TAKES_NAMES,
    .own = own,
    .run = queue,
};
