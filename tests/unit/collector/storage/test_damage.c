/* Corrupted bytes in each part of a segment and of `finished`: what is broken is counted and never
 * delivered, everything else is there. */
#include "tests/unit/collector/storage/rig.h"

#define RECORDS 40u

static struct rig *rig;
static uint64_t records[RECORDS];

/* Forty records in one segment, closed: sealed with a footer. */
static int setup(void **state)
{
    rig = rig_new(disk_new(1));
    rig->segment_bytes = 1 << 20;
    rig_open(rig);
    for (uint32_t i = 0; i < RECORDS; i++)
        records[i] = put_one(rig, i, 3);
    return 0;
}

static int teardown(void **state)
{
    rig_free(rig);
    return 0;
}

static struct disk_data *segment(void)
{
    return disk_data(rig->disk, "0001.segment");
}

static void stop(bool killed)
{
    if (killed)
        rig->disk->gone = true;
    rig_close(rig);
    disk_kill(rig->disk);
}

/* Where the record lies in the file. */
static uint64_t offset_of(uint32_t record)
{
    uint64_t at = FLUE_STORAGE_DATA;
    for (uint32_t i = 0; i < record; i++)
        at += flue_storage_record_size(i < 10 ? 1 : 2, body_size(i));
    return at;
}

/* Takes all of a queue. What is `bad` is either not there or its read says that it is damaged; the
 * number of those that were offered and could not be read. */
static unsigned assert_all_but(unsigned queue, uint64_t bad)
{
    struct flue_storage_entry entry;
    struct flue_error error;
    uint64_t seen = 0;
    unsigned refused = 0;
    uint32_t tag;
    while (take_wait(rig, queue, FLUE_STORAGE_OLDEST, &entry)) {
        enum flue_code code = get(rig, queue, entry.record, &tag, &error);
        uint32_t index = (uint32_t)(entry.record & 0xffff);
        if (code) {
            assert_int_equal(code, FLUE_INVALID);
            assert_non_null(strstr(error.text, "damaged"));
            assert_true(bad >> index & 1);
            refused++;
            flue_storage_finish(rig->queues[queue], entry.record);
            continue;
        }
        assert_int_equal(tag, index);
        assert_false(seen >> tag & 1);
        seen |= UINT64_C(1) << tag;
    }
    assert_int_equal(seen, ((UINT64_C(1) << RECORDS) - 1) & ~bad);
    return refused;
}

static int64_t damaged(void)
{
    return flue_metric_get(rig->storage->damaged);
}

static const char *part_names[] = {"header", "head", "body"};
static uint64_t part_at(uint32_t record, unsigned part)
{
    return offset_of(record) + (part == 0   ? 30
                                : part == 1 ? sizeof(struct flue_storage_record)
                                            : sizeof(struct flue_storage_record) + 200);
}

/* In a sealed segment the footer says where everything is: only the record itself is lost, and its
 * checksum is looked at when it is read. */
static void a_sealed_record_is_found_damaged_when_read(void **state)
{
    for (unsigned part = 0; part < 3; part++) {
        stop(false);
        segment()->bytes[part_at(17, part)] ^= 0x40;
        rig_open(rig);
        assert_int_equal(damaged(), 0);
        if (assert_all_but(0, UINT64_C(1) << 17) != 1 || damaged() != 1)
            fail_msg("%s", part_names[part]);
        teardown(state);
        setup(state);
    }
}

/* In the open segment the scan finds it, and goes on behind it. */
static void a_scanned_record_is_set_aside(void **state)
{
    for (unsigned part = 0; part < 3; part++)
        for (int times = 0; times < 2; times++) {
            stop(true);
            segment()->bytes[part_at(17, part)] ^= 0x40;
            segment()->bytes[part_at(18, part)] ^= 0x40;
            rig_open(rig);
            assert_int_equal(damaged(), 2);
            assert_int_equal(assert_all_but(0, UINT64_C(3) << 17), 0);
            assert_int_equal(assert_all_but(1, UINT64_C(3) << 17), 0);
            /* Sealed by then: the next start knows without a scan. */
            stop(true);
            rig_open(rig);
            assert_int_equal(assert_all_but(0, UINT64_C(3) << 17), 0);
            for (unsigned queue = 0; queue < 2; queue++)
                for (uint32_t i = 0; i < RECORDS; i++)
                    flue_storage_finish(rig->queues[queue], records[i]);
            rig_rest(rig); /* once the rest is sent the file is kept for people */
            assert_int_equal(disk_count(rig->disk, "0001.segment.damaged"), 1);
            teardown(state);
            setup(state);
        }
}

static void the_first_record_too(void **state)
{
    stop(true);
    segment()->bytes[part_at(0, 0)] ^= 1;
    rig_open(rig);
    assert_int_equal(damaged(), 1);
    assert_all_but(0, 1);
}

/* One sector of the header may rot: there are two copies. */
static void one_copy_of_the_header_is_enough(void **state)
{
    for (size_t copy = 0; copy < 2; copy++)
        for (size_t at = 0; at < 60; at += 5) {
            stop(at % 2);
            segment()->bytes[copy * FLUE_STORAGE_BLOCK + at] ^= 0xff;
            rig_open(rig);
            assert_int_equal(damaged(), 0);
            assert_int_equal(assert_all_but(0, 0), 0);
            segment()->bytes[copy * FLUE_STORAGE_BLOCK + at] ^= 0xff;
        }
}

static void without_a_header_the_segment_is_set_aside(void **state)
{
    stop(true);
    segment()->bytes[20] ^= 1;
    segment()->bytes[FLUE_STORAGE_BLOCK + 20] ^= 1;
    rig_open(rig);
    assert_int_equal(damaged(), 1);
    assert_int_equal(disk_count(rig->disk, "0001.segment.damaged"), 1);
    uint32_t tag;
    uint64_t next = put_one(rig, 5, 1);
    assert_true(next >> 16 > 1); /* its number is not used again */
    assert_int_equal(get(rig, 0, next, &tag, NULL), FLUE_OK);
}

/* Rows or trailer broken: a scan finds everything all the same. */
static void without_a_footer_the_segment_is_scanned(void **state)
{
    stop(false);
    size_t size = segment()->size;
    size_t footer = RECORDS * sizeof(struct flue_storage_row) + sizeof(struct flue_storage_trailer);
    struct disk_data sealed = {.bytes = malloc(size), .size = size};
    memcpy(sealed.bytes, segment()->bytes, size);
    for (size_t at = 1; at <= footer; at += 37) {
        segment()->bytes[size - at] ^= 0x10;
        rig_open(rig);
        assert_int_equal(assert_all_but(0, 0), 0);
        stop(false);
        disk_grow(segment(), size);
        memcpy(segment()->bytes, sealed.bytes, size);
    }
    for (size_t cut = 1; cut < footer + 3; cut += 51) { /* and cut off anywhere */
        segment()->size = size - cut;
        rig_open(rig);
        assert_int_equal(assert_all_but(0, 0), 0);
        assert_int_equal(damaged(), 0);
        stop(true);
        disk_grow(segment(), size);
        memcpy(segment()->bytes, sealed.bytes, size);
    }
    free(sealed.bytes);
    rig_open(rig);
}

/* A footer that is broken and a record behind the last `synced`: the trailer says that all of it
 * was acknowledged. */
static void a_broken_footer_still_says_what_was_acknowledged(void **state)
{
    stop(false);
    size_t size = segment()->size;
    segment()->bytes[size - sizeof(struct flue_storage_trailer) - 10] ^= 1; /* a row */
    segment()->bytes[part_at(RECORDS - 1, 0)] ^= 1;                         /* the last record */
    rig_open(rig);
    assert_int_equal(damaged(), 1);
    assert_all_but(0, UINT64_C(1) << (RECORDS - 1));
}

/* The end of the open segment, cut at every byte of the last two records: a torn tail is no damage,
 * what is whole is there. */
static void a_torn_tail_is_cut_off(void **state)
{
    uint64_t end = offset_of(RECORDS), from = offset_of(RECORDS - 2) - 1;
    stop(true);
    size_t size = segment()->size;
    uint8_t *whole = malloc(size);
    memcpy(whole, segment()->bytes, size);
    for (uint64_t at = from; at < end; at += at - from < 300 ? 1 : 97) {
        memset(segment()->bytes + at, 0, size - at);
        rig_open(rig);
        uint64_t bad = at < offset_of(RECORDS - 2)   ? UINT64_C(7) << (RECORDS - 3)
                       : at < offset_of(RECORDS - 1) ? UINT64_C(3) << (RECORDS - 2)
                                                     : UINT64_C(1) << (RECORDS - 1);
        struct flue_storage_lag lag;
        flue_storage_recovered(rig->queues[0], &lag);
        uint32_t there = RECORDS - (uint32_t)__builtin_popcountll(bad);
        /* Padding is zeros anyway, and zeros may be what was there. */
        assert_true(lag.records >= there && lag.records <= there + 1);
        /* The last record but one was synced before the last was written. */
        assert_true(damaged() <= 2);
        stop(true);
        disk_grow(segment(), size);
        memcpy(segment()->bytes, whole, size);
        flue_metrics_destroy(rig->metrics);
        rig->metrics = flue_metrics_new("otelcol_");
    }
    free(whole);
    rig_open(rig);
    assert_int_equal(assert_all_but(0, 0), 0);
}

static int64_t torn(void)
{
    return flue_metric_get(rig->storage->torn);
}

/* The last records as one write: none of them says that another was synced. */
static void as_one_write(uint32_t first)
{
    for (uint32_t i = first; i < RECORDS; i++) {
        struct flue_storage_record record;
        memcpy(&record, segment()->bytes + offset_of(i), sizeof record);
        record.synced = offset_of(first);
        flue_storage_record_seal(&record);
        memcpy(segment()->bytes + offset_of(i), &record, sizeof record);
    }
}

/* What is broken of the last write may have been acknowledged or not: that is said and counted, and
 * what is whole of it is there, in front of the broken and behind it. */
static void the_last_write_is_kept_but_for_what_is_broken(void **state)
{
    for (unsigned part = 0; part < 4; part++)
        for (uint32_t bad = RECORDS - 4; bad < RECORDS; bad++) {
            stop(true);
            as_one_write(RECORDS - 4);
            if (part < 3)
                segment()->bytes[part_at(bad, part)] ^= 0x40;
            rig_open(rig);
            assert_int_equal(damaged(), 0);
            assert_int_equal(torn(), part < 3);
            assert_int_equal(assert_all_but(0, part < 3 ? UINT64_C(1) << bad : 0), 0);
            stop(true);
            rig_open(rig); /* sealed: it is said once */
            assert_int_equal(torn(), part < 3);
            assert_int_equal(assert_all_but(1, part < 3 ? UINT64_C(1) << bad : 0), 0);
            teardown(state);
            setup(state);
        }
}

/* Bytes of a sender that are a whole record of a log, salt and all but right, are none. */
static void a_forged_record_in_a_body_is_none(void **state)
{
    struct flue_storage_record forged = {.salt = rig->storage->segments[0]->salt ^ 1,
                                         .record = records[RECORDS - 1] + 5,
                                         .owing = 3};
    flue_storage_record_seal(&forged);
    stop(true);
    uint8_t *at = segment()->bytes + offset_of(17);
    at[8] ^= 1; /* the header of the record that holds it is broken: the scan looks inside */
    uint64_t inside = (uint64_t)sizeof forged + 8;
    memcpy(at + inside + 16 - inside % 16, &forged, sizeof forged);
    rig_open(rig);
    assert_int_equal(assert_all_but(0, UINT64_C(1) << 17), 0);
}

/* ---- `finished` ------------------------------------------------------------------------------ */

static void a_broken_entry_costs_a_duplicate(void **state)
{
    for (uint32_t i = 0; i < 10; i++) {
        flue_storage_finish(rig->queues[0], records[i * 2]);
        rig_rest(rig); /* an entry each */
    }
    stop(true);
    struct disk_data *data = disk_data(rig->disk, "finished");
    size_t count = (data->size - FLUE_STORAGE_BLOCK) / sizeof(struct flue_storage_finished);
    assert_true(count >= 10);
    data->bytes[FLUE_STORAGE_BLOCK + (count - 5) * sizeof(struct flue_storage_finished) + 9] ^= 4;
    data->size -= 7; /* and the last one is torn */
    rig_open(rig);
    uint64_t done = 0;
    for (uint32_t i = 0; i < 9; i++)
        if (i != 5)
            done |= UINT64_C(1) << i * 2;
    assert_int_equal(assert_all_but(0, done), 0);
    assert_int_equal(assert_all_but(1, 0), 0);
    assert_int_equal(damaged(), 0); /* none of it was synced: it may have been a power cut */
}

static void a_broken_synced_entry_is_damage(void **state)
{
    for (uint32_t i = 1; i < 10; i += 2)
        flue_storage_finish(rig->queues[0], records[i]);
    rig_rest(rig);
    stop(true);
    rig_open(rig); /* writes it anew: a mark and five ranges for this queue */
    stop(true);
    disk_data(rig->disk, "finished")
        ->bytes[FLUE_STORAGE_BLOCK + 2 * sizeof(struct flue_storage_finished) + 9] ^= 4;
    rig_open(rig);
    assert_int_equal(damaged(), 1);
    assert_int_equal(assert_all_but(0, UINT64_C(0x2a2)), 0); /* 3 comes again */
}

static void a_broken_header_of_finished_costs_duplicates_only(void **state)
{
    for (uint32_t i = 0; i < RECORDS; i += 2)
        flue_storage_finish(rig->queues[0], records[i]);
    rig_rest(rig);
    stop(true);
    disk_data(rig->disk, "finished")->bytes[4] ^= 1;
    rig_open(rig);
    assert_int_equal(damaged(), 1);
    assert_int_equal(disk_count(rig->disk, "finished.damaged"), 1);
    assert_int_equal(assert_all_but(0, 0), 0);
}

static void an_entry_of_another_segment_of_this_number_is_ignored(void **state)
{
    for (uint32_t i = 0; i < RECORDS; i++)
        flue_storage_finish(rig->queues[0], records[i]);
    rig_rest(rig);
    stop(true);
    struct disk_data *data = disk_data(rig->disk, "finished");
    for (size_t at = FLUE_STORAGE_BLOCK; at < data->size;
         at += sizeof(struct flue_storage_finished)) {
        struct flue_storage_finished entry;
        memcpy(&entry, data->bytes + at, sizeof entry);
        entry.salt ^= 1;
        flue_storage_finished_seal(&entry);
        memcpy(data->bytes + at, &entry, sizeof entry);
    }
    rig_open(rig);
    assert_int_equal(assert_all_but(0, 0), 0);
}

/* Any one bit of the whole file: nothing wrong is ever delivered, and at most one record is lost
 * (rig's get() compares every byte). */
static void any_bit_may_rot(void **state)
{
    stop(true);
    size_t size = (size_t)offset_of(RECORDS) + 4096;
    uint8_t *whole = malloc(segment()->size);
    size_t whole_size = segment()->size;
    memcpy(whole, segment()->bytes, whole_size);
    uint64_t dice = 7;
    for (int i = 0; i < 150; i++) {
        dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407u;
        size_t at = i < 20 ? (size_t)(dice >> 33) % FLUE_STORAGE_DATA : (size_t)(dice >> 33) % size;
        segment()->bytes[at] ^= (uint8_t)(1u << (dice >> 20 & 7));
        rig_open(rig);
        struct flue_storage_entry entry;
        uint32_t tag, seen = 0;
        while (take_wait(rig, 0, FLUE_STORAGE_NEWEST, &entry))
            if (get(rig, 0, entry.record, &tag, NULL) == FLUE_OK) {
                assert_int_equal(tag, entry.record & 0xffff);
                seen++;
            }
        assert_in_range(seen, RECORDS - 1, RECORDS);
        stop(true);
        disk_grow(segment(), whole_size);
        memcpy(segment()->bytes, whole, whole_size);
        /* It says of what was damaged that nobody owes it. */
        assert_int_equal(rig->disk->io.unlink(&rig->disk->io, "/log/finished"), 0);
        disk_settle(rig->disk);
    }
    free(whole);
    rig_open(rig);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_sealed_record_is_found_damaged_when_read),
        TEST(a_scanned_record_is_set_aside),
        TEST(the_first_record_too),
        TEST(one_copy_of_the_header_is_enough),
        TEST(without_a_header_the_segment_is_set_aside),
        TEST(without_a_footer_the_segment_is_scanned),
        TEST(a_broken_footer_still_says_what_was_acknowledged),
        TEST(a_torn_tail_is_cut_off),
        TEST(the_last_write_is_kept_but_for_what_is_broken),
        TEST(a_forged_record_in_a_body_is_none),
        TEST(a_broken_entry_costs_a_duplicate),
        TEST(a_broken_synced_entry_is_damage),
        TEST(a_broken_header_of_finished_costs_duplicates_only),
        TEST(an_entry_of_another_segment_of_this_number_is_ignored),
        TEST(any_bit_may_rot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
