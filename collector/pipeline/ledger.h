/* ledger.h: the books of one pipeline's way to one exporter, and of a pipeline itself, in profiles,
 * samples and bytes as received.
 *
 * The balance that every test asserts, for each exporter and pipeline, at any moment at which the
 * loops are quiet:
 *
 *     received + recovered = sent + dropped (by reason) + queued + in_flight
 *
 * "recovered" is what a durable queue held at start; it is kept in a book of its own, under the
 * pipeline "recovered". "queued" includes what waits on disk.
 * "received" is what the destination has taken responsibility for. What a sender was refused and
 * still has is "refused" and stands outside the balance. A send whose sender waits for the result
 * (no queue, or wait_for_result) is received when the destination has taken it.
 *
 * One writer per loop: a row is changed by a plain load and store on the loop's own cache lines,
 * and summed when it is read. Drops are rare and shared.
 */
#ifndef FLUE_PIPELINE_LEDGER_H
#define FLUE_PIPELINE_LEDGER_H

#include "collector/base/loop.h"
#include "collector/base/metrics.h"
#include "collector/base/payload.h"

enum flue_ledger_row {
    FLUE_ROW_RECEIVED,
    FLUE_ROW_SENT,
    FLUE_ROW_QUEUED,
    FLUE_ROW_IN_FLIGHT,
    FLUE_ROW_REFUSED,
    FLUE_ROW_RECOVERED,
    FLUE_ROWS
};

/* Why something was dropped: an enum flue_code, or one of the engine's own. */
enum flue_drop_reason {
    FLUE_DROP_QUEUE_FULL = FLUE_CODES, /* on_overflow: drop */
    FLUE_DROP_MAX_ELAPSED,             /* retried for max_elapsed_time */
    FLUE_DROP_SHUTDOWN,                /* still there at the deadline of a drain */
    FLUE_DROP_REJECTED,                /* the destination's partial success */
    FLUE_DROP_DAMAGED,                 /* a record of the log that cannot be read any more */
    FLUE_DROP_REASONS
};
const char *flue_drop_reason_name(unsigned reason);

struct flue_ledger_loop {
    _Alignas(64) _Atomic int64_t rows[FLUE_ROWS][3];
};
struct flue_ledger;
struct flue_ledger_reader { /* what the metrics page reads */
    const struct flue_ledger *ledger;
    unsigned row, unit;
};
struct flue_ledger {
    struct flue_ledger_loop *loops;
    unsigned loop_count;
    const char *family;              /* "exporter" or "pipeline" */
    const char *exporter, *pipeline; /* labels; exporter may be NULL */
    struct flue_metrics *metrics;
    _Atomic(struct flue_metric *) drops[FLUE_DROP_REASONS][3];
    _Atomic int64_t dropped[3], lost[3], lost_items;
    struct flue_ledger_reader readers[FLUE_ROWS][3];
};

/* Registers <family>_<row>_{profiles,samples,bytes} for the rows in `rows` (1 << row). The names
 * are borrowed as long as the ledger. False without memory. */
bool flue_ledger_init(struct flue_ledger *ledger, const char *family, const char *exporter,
                      const char *pipeline, unsigned rows, unsigned loop_count,
                      struct flue_metrics *metrics);
void flue_ledger_destroy(struct flue_ledger *ledger);
void flue_ledger_drop(struct flue_ledger *ledger, unsigned reason,
                      const struct flue_counts *counts);
struct flue_counts flue_ledger_sum(const struct flue_ledger *ledger, enum flue_ledger_row row);
struct flue_counts flue_ledger_dropped(const struct flue_ledger *ledger);

/* One writer: a plain load and store, seen whole by readers on other threads. */
static inline void flue_own_add(_Atomic int64_t *value, int64_t n)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void flue_ledger_add(struct flue_ledger *ledger, unsigned loop,
                                   enum flue_ledger_row row, const struct flue_counts *counts)
{
    _Atomic int64_t *cells = ledger->loops[loop].rows[row];
    flue_own_add(&cells[0], (int64_t)counts->profiles);
    flue_own_add(&cells[1], (int64_t)counts->samples);
    flue_own_add(&cells[2], (int64_t)counts->bytes);
}
static inline void flue_ledger_subtract(struct flue_ledger *ledger, unsigned loop,
                                        enum flue_ledger_row row, const struct flue_counts *counts)
{
    _Atomic int64_t *cells = ledger->loops[loop].rows[row];
    flue_own_add(&cells[0], -(int64_t)counts->profiles);
    flue_own_add(&cells[1], -(int64_t)counts->samples);
    flue_own_add(&cells[2], -(int64_t)counts->bytes);
}
static inline void flue_counts_add(struct flue_counts *sum, const struct flue_counts *counts)
{
    sum->profiles += counts->profiles;
    sum->samples += counts->samples;
    sum->bytes += counts->bytes;
}

#endif
