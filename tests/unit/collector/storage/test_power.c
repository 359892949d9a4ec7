/* Power cuts and kills at any moment, several hundred times: every acknowledged record is there,
 * byte for byte, and what was answered with an error while the power was on never is. */
#include "tests/unit/collector/storage/rig.h"

#define LIVES 4
#define MOST  400u

static struct rig *rig;

struct fate { /* of the record with this tag */
    bool acknowledged, refused;
    unsigned mask, finished; /* queues */
    uint64_t record;
};
static struct fate fates[MOST];
static uint32_t tags;

static uint64_t roll(uint64_t sides)
{
    return disk_dice(rig->disk) % sides;
}

static bool power(void)
{
    pthread_mutex_lock(&rig->disk->lock);
    bool on = !rig->disk->gone;
    pthread_mutex_unlock(&rig->disk->lock);
    return on;
}

/* What is on disk is exactly what must be there. `exact`: a kill, where what was written down as
 * finished stays so. */
static void check_all(bool exact)
{
    for (unsigned queue = 0; queue < RIG_QUEUES; queue++) {
        struct flue_storage_entry entry;
        struct flue_error error;
        bool seen[MOST] = {false};
        uint32_t tag = 0;
        uint64_t before = 0, bytes = 0, count = 0;
        struct flue_storage_lag lag;
        flue_storage_recovered(rig->queues[queue], &lag);
        while (take_wait(rig, queue, FLUE_STORAGE_OLDEST, &entry)) {
            assert_true(entry.record > before);
            before = entry.record;
            count++;
            bytes += entry.bytes;
            if (get(rig, queue, entry.record, &tag, &error))
                fail_msg("%s", error.text);
            assert_true(tag < tags);
            assert_false(seen[tag]);
            seen[tag] = true;
            if (fates[tag].refused)
                fail_msg("the record %u was refused and is there", tag);
            assert_true(fates[tag].mask >> queue & 1);
            if (exact && fates[tag].finished >> queue & 1)
                fail_msg("the record %u was finished and comes again", tag);
            fates[tag].finished &= ~(1u << queue); /* owed again, from now on */
        }
        assert_int_equal(count, lag.records);
        assert_int_equal(bytes, lag.bytes);
        for (uint32_t i = 0; i < tags; i++)
            if (fates[i].acknowledged && fates[i].mask >> queue & 1 &&
                !(fates[i].finished >> queue & 1) && !seen[i])
                fail_msg("the acknowledged record %u is not there", i);
    }
    assert_int_equal(flue_metric_get(rig->storage->damaged), 0);
}

static void finish_some(void)
{
    for (unsigned i = 0; i < 6 && tags; i++) {
        struct fate *fate = &fates[roll(tags)];
        unsigned queue = (unsigned)roll(RIG_QUEUES);
        if (!fate->acknowledged || !(fate->mask >> queue & 1))
            continue;
        flue_storage_finish(rig->queues[queue], fate->record);
        fate->finished |= 1u << queue;
    }
}

/* Appends, finishes, now and then a fault of the disk, until the power is gone. */
static void live(bool faults)
{
    while (power() && tags + 12 < MOST) {
        struct put *puts[12];
        size_t count = 1 + roll(12);
        if (faults && roll(6) == 0) {
            pthread_mutex_lock(&rig->disk->lock);
            rig->disk->once = true;
            *(roll(2) ? &rig->disk->sync_errno : &rig->disk->write_errno) = EIO;
            rig->disk->shortest = roll(3) ? 0 : 1000;
            pthread_mutex_unlock(&rig->disk->lock);
        }
        for (size_t i = 0; i < count; i++) {
            unsigned mask = 1 + (unsigned)roll((1 << RIG_QUEUES) - 1);
            fates[tags] = (struct fate){.mask = mask};
            puts[i] = put_sized(rig, tags, roll(3) ? roll(300) : roll(20000), mask, 0);
            tags++;
        }
        for (size_t i = 0; i < count; i++) {
            struct put *put = puts[i];
            put_wait(put);
            struct fate *fate = &fates[put->tag];
            fate->acknowledged = put->code == FLUE_OK;
            fate->record = put->append.record;
            fate->refused = put->code != FLUE_OK && power();
            put_free(put);
        }
        finish_some();
        flue_clock_move(INT64_C(10000000000)); /* no back-off lasts */
    }
}

static void run(uint64_t seed, bool cut, bool faults)
{
    rig = rig_new(disk_new(seed));
    rig->segment_bytes = 128 * 1024;
    rig->rewrites = seed % 3 == 0;
    tags = 0;
    for (int life = 0; life < LIVES; life++) {
        struct flue_error error = {0};
        rig->disk->cut_at = 1 + roll(life % 2 ? 60 : 400);
        if (rig_try_open(rig, &error) == FLUE_OK)
            live(faults);
        else
            assert_false(power()); /* it went while starting */
        if (rig->storage && !cut)
            rig_rest(rig); /* all is written down: nothing that is finished comes again */
        bool natural = power();
        pthread_mutex_lock(&rig->disk->lock);
        rig->disk->gone = true;
        rig->disk->sync_errno = rig->disk->write_errno = 0;
        rig->disk->shortest = 0;
        pthread_mutex_unlock(&rig->disk->lock);
        rig_close(rig);
        if (cut)
            disk_power_cut(rig->disk);
        else
            disk_kill(rig->disk);
        flue_metrics_destroy(rig->metrics); /* what was unreadable without power does not count */
        rig->metrics = flue_metrics_new("otelcol_");
        rig_open(rig);
        check_all(!cut && natural);
        if (roll(2)) {
            rig_close(rig); /* in order, this time */
            disk_settle(rig->disk);
        } else {
            rig->disk->gone = true;
            rig_close(rig);
            if (cut)
                disk_power_cut(rig->disk);
            else
                disk_kill(rig->disk);
        }
    }
    rig_free(rig);
}

static void power_cuts(void **state)
{
    for (uint64_t seed = 1; seed <= 120; seed++)
        run(seed, true, false);
}

static void power_cuts_of_failing_disks(void **state)
{
    for (uint64_t seed = 1001; seed <= 1120; seed++)
        run(seed, true, true);
}

static void kills(void **state)
{
    for (uint64_t seed = 2001; seed <= 2100; seed++)
        run(seed, false, seed % 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_cuts),
        cmocka_unit_test(power_cuts_of_failing_disks),
        cmocka_unit_test(kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
