/* ledger.c: counts of what came, what left, what was lost, and their metrics. */
#include "collector/pipeline/ledger.h"
#include <stdio.h>
#include <stdlib.h>

static const char *const unit_names[3] = {"profiles", "samples", "bytes"};
static const struct {
    const char *name, *help;
    enum flue_metric_type type;
} row_facts[FLUE_ROWS] = {
    [FLUE_ROW_RECEIVED] = {"received", "taken over from the sender, as received", FLUE_COUNTER},
    [FLUE_ROW_SENT] = {"sent", "taken by the destination, as received", FLUE_COUNTER},
    [FLUE_ROW_QUEUED] = {"queued", "waiting to be sent, as received", FLUE_GAUGE},
    [FLUE_ROW_IN_FLIGHT] = {"in_flight", "being sent or waiting to be sent again, as received",
                            FLUE_GAUGE},
    [FLUE_ROW_RECOVERED] = {"recovered", "found in the queue on disk at start, as received",
                            FLUE_COUNTER},
    [FLUE_ROW_REFUSED] = {"refused", "given back to the sender with an error, as received",
                          FLUE_COUNTER},
};

const char *flue_drop_reason_name(unsigned reason)
{
    static const char *const own[] = {"queue_full", "max_elapsed_time", "shutdown", "rejected",
                                      "damaged"};

    if (reason >= FLUE_CODES && reason < FLUE_DROP_REASONS)
        return own[reason - FLUE_CODES];
    return flue_code_facts((enum flue_code)reason)->name;
}

static struct flue_metric *drop_metric(struct flue_ledger *ledger, unsigned reason, unsigned unit)
{
    struct flue_metric *metric = atomic_load(&ledger->drops[reason][unit]);
    struct flue_label labels[4];
    unsigned count = 0;
    char name[64];

    if (metric)
        return metric;
    if (ledger->exporter)
        labels[count++] = (struct flue_label){"exporter", ledger->exporter};
    labels[count++] = (struct flue_label){"pipeline", ledger->pipeline};
    labels[count++] = (struct flue_label){"reason", flue_drop_reason_name(reason)};
    labels[count] = (struct flue_label){NULL, NULL};
    (void)snprintf(name, sizeof name, "%s_dropped_%s", ledger->family, unit_names[unit]);
    metric = flue_metric(ledger->metrics, FLUE_COUNTER, name,
                         "lost after it was taken over from the sender, as received", labels);
    atomic_store(&ledger->drops[reason][unit], metric);
    return metric;
}

void flue_ledger_drop(struct flue_ledger *ledger, unsigned reason, const struct flue_counts *counts)
{
    const uint64_t values[3] = {counts->profiles, counts->samples, counts->bytes};

    for (unsigned unit = 0; unit < 3; unit++) {
        if (ledger->metrics)
            flue_metric_add(drop_metric(ledger, reason, unit), (int64_t)values[unit]);
        atomic_fetch_add(&ledger->dropped[unit], (int64_t)values[unit]);
        if (reason == FLUE_DROP_SHUTDOWN)
            atomic_fetch_add(&ledger->lost[unit], (int64_t)values[unit]);
    }
    if (reason == FLUE_DROP_SHUTDOWN)
        atomic_fetch_add(&ledger->lost_items, 1);
}

static int64_t sum_cell(const struct flue_ledger *ledger, unsigned row, unsigned unit)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < ledger->loop_count; i++)
        sum += atomic_load_explicit(&ledger->loops[i].rows[row][unit], memory_order_relaxed);
    return sum;
}

static struct flue_counts counts_of(int64_t profiles, int64_t samples, int64_t bytes)
{
    return (struct flue_counts){(uint64_t)profiles, (uint64_t)samples, (uint64_t)bytes};
}

struct flue_counts flue_ledger_sum(const struct flue_ledger *ledger, enum flue_ledger_row row)
{
    return counts_of(sum_cell(ledger, row, 0), sum_cell(ledger, row, 1), sum_cell(ledger, row, 2));
}

struct flue_counts flue_ledger_dropped(const struct flue_ledger *ledger)
{
    return counts_of(atomic_load(&ledger->dropped[0]), atomic_load(&ledger->dropped[1]),
                     atomic_load(&ledger->dropped[2]));
}

static double read_cell(void *arg)
{
    const struct flue_ledger_reader *reader = arg;

    return (double)sum_cell(reader->ledger, reader->row, reader->unit);
}

bool flue_ledger_init(struct flue_ledger *ledger, const char *family, const char *exporter,
                      const char *pipeline, unsigned rows, unsigned loop_count,
                      struct flue_metrics *metrics)
{
    struct flue_label labels[3];
    unsigned label_count = 0;

    memset(ledger, 0, sizeof *ledger);
    ledger->loops = aligned_alloc(64, loop_count * sizeof *ledger->loops);
    if (!ledger->loops)
        return false;
    memset(ledger->loops, 0, loop_count * sizeof *ledger->loops);
    ledger->loop_count = loop_count;
    ledger->family = family;
    ledger->exporter = exporter;
    ledger->pipeline = pipeline;
    ledger->metrics = metrics;
    if (!metrics)
        return true;
    if (exporter)
        labels[label_count++] = (struct flue_label){"exporter", exporter};
    labels[label_count++] = (struct flue_label){"pipeline", pipeline};
    labels[label_count] = (struct flue_label){NULL, NULL};
    for (unsigned row = 0; row < FLUE_ROWS; row++) {
        if (!(rows & 1u << row))
            continue;
        for (unsigned unit = 0; unit < 3; unit++) {
            char name[64];
            (void)snprintf(name, sizeof name, "%s_%s_%s", family, row_facts[row].name,
                           unit_names[unit]);
            ledger->readers[row][unit] = (struct flue_ledger_reader){ledger, row, unit};
            flue_metric_callback(metrics, row_facts[row].type, name, row_facts[row].help, labels,
                                 read_cell, &ledger->readers[row][unit]);
        }
    }
    return true;
}

void flue_ledger_destroy(struct flue_ledger *ledger)
{
    free(ledger->loops);
    ledger->loops = NULL;
}
