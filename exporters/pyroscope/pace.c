/* pace.c: see pace.h. */
#include "exporters/pyroscope/pace.h"
#include <stdlib.h>

#define SECOND     1000000000ull
#define GROW_EVERY (10 * SECOND)
#define LEAST_RATE (64 * 1024)
#define LONGEST_NS (5 * SECOND) /* ask again: the rate may have changed */

struct flue_pace *flue_pace_new(const struct flue_pacing_config *config)
{
    struct flue_pace *pace = calloc(1, sizeof *pace); /* untouched pages cost nothing */

    if (!pace)
        return NULL;
    pace->config = *config;
    pace->others.tenant = 1;
    pace->others.rate = config->rate;
    return pace;
}

void flue_pace_free(struct flue_pace *pace)
{
    free(pace);
}

struct flue_pace_bucket *flue_pace_of(struct flue_pace *pace, uint64_t tenant)
{
    if (tenant == 0)
        tenant = 1;
    for (unsigned i = 0; i < 8; i++) {
        struct flue_pace_bucket *b = &pace->tenants[(tenant + i) % FLUE_PACE_TENANTS];
        uint64_t there = atomic_load_explicit(&b->tenant, memory_order_acquire);
        if (there == tenant)
            return b;
        if (there == 0) {
            /* The rate is in place before anybody finds it; two loops write the same. */
            atomic_store(&b->rate, pace->config.rate);
            if (atomic_compare_exchange_strong(&b->tenant, &there, tenant) || there == tenant)
                return b;
        }
    }
    return &pace->others;
}

static void count_sent(struct flue_pace_bucket *b, uint64_t bytes, uint64_t now)
{
    uint64_t second = atomic_load_explicit(&b->second_ns, memory_order_relaxed);

    if (now - second >= SECOND && atomic_compare_exchange_strong(&b->second_ns, &second, now)) {
        int64_t sent = atomic_exchange(&b->sent, 0);
        atomic_store(&b->sent_before, now - second < 2 * SECOND ? sent : 0);
    }
    atomic_fetch_add_explicit(&b->sent, (int64_t)bytes, memory_order_relaxed);
}

static int64_t ceiling_of(const struct flue_pace *pace, const struct flue_pace_bucket *b)
{
    int64_t said = atomic_load_explicit(&b->ceiling, memory_order_relaxed);

    if (pace->config.rate && (!said || pace->config.rate < said))
        return pace->config.rate;
    return said;
}

static int64_t rate_now(const struct flue_pace *pace, struct flue_pace_bucket *b, uint64_t now)
{
    int64_t rate = atomic_load_explicit(&b->rate, memory_order_relaxed), ceiling;
    uint64_t changed = atomic_load_explicit(&b->changed_ns, memory_order_relaxed);

    if (!rate || !changed || now - changed < GROW_EVERY)
        return rate;
    ceiling = ceiling_of(pace, b);
    if ((ceiling && rate >= ceiling) ||
        !atomic_compare_exchange_strong(&b->changed_ns, &changed, now))
        return rate;
    rate += rate / 20;
    if (ceiling && rate > ceiling)
        rate = ceiling;
    atomic_store(&b->rate, rate);
    return rate;
}

uint64_t flue_pace_take(const struct flue_pace *pace, struct flue_pace_bucket *b, uint64_t bytes,
                        uint64_t now)
{
    int64_t rate;
    uint64_t full, cost, burst, next;

    if (pace->config.rate == 0 && !pace->config.learn)
        return 0;
    rate = rate_now(pace, b, now);
    if (rate == 0) {
        count_sent(b, bytes, now);
        return 0;
    }
    cost = (uint64_t)((double)bytes / (double)rate * (double)SECOND);
    burst = (uint64_t)((double)pace->config.burst / (double)rate * (double)SECOND);
    full = atomic_load(&b->full_ns);
    do {
        uint64_t from = full > now ? full : now, ahead;
        next = from + cost;
        ahead = cost < burst ? next - now : from - now + burst; /* over the burst: when full */
        if (ahead > burst)
            return ahead - burst < LONGEST_NS ? ahead - burst : LONGEST_NS;
    } while (!atomic_compare_exchange_weak(&b->full_ns, &full, next));
    count_sent(b, bytes, now);
    return 0;
}

int64_t flue_pace_said(struct flue_bytes text)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824.0}, {"kB", 1e3}, {"MB", 1e6},
                 {"GB", 1e9},   {"B", 1}};
    static const char begin[] = "rate limit (";
    char copy[64];
    const uint8_t *found = text.size ? memmem(text.data, text.size, begin, sizeof begin - 1) : NULL;
    struct flue_bytes rest;
    double number;
    char *end;

    if (!found)
        return 0;
    rest = flue_bytes_first(flue_bytes_from(text, (size_t)(found - text.data) + sizeof begin - 1),
                            sizeof copy - 1);
    memcpy(copy, rest.data, rest.size);
    copy[rest.size] = 0;
    number = strtod(copy, &end);
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strncmp(end, units[i].name, strlen(units[i].name)) == 0 && number > 0 && number < 1e9)
            return (int64_t)(number * units[i].bytes);
    return 0;
}

void flue_pace_refused(const struct flue_pace *pace, struct flue_pace_bucket *b,
                       struct flue_bytes text, uint64_t now)
{
    uint64_t changed = atomic_load(&b->changed_ns);
    int64_t said = flue_pace_said(text), rate = atomic_load(&b->rate), observed;

    /* Answers to what was sent before the last change say nothing about it. */
    if (!pace->config.learn || (changed && now - changed < SECOND) ||
        !atomic_compare_exchange_strong(&b->changed_ns, &changed, now))
        return;
    if (said)
        atomic_store(&b->ceiling, said);
    if (rate == 0 && said) {
        rate = said;
    } else if (rate == 0) {
        observed = atomic_load(&b->sent_before);
        rate = observed > atomic_load(&b->sent) ? observed : atomic_load(&b->sent);
        rate /= 2;
    } else {
        rate -= rate / 4; /* others send as the same tenant, too */
    }
    if (pace->config.rate && rate > pace->config.rate)
        rate = pace->config.rate;
    atomic_store(&b->rate, rate < LEAST_RATE ? LEAST_RATE : rate);
    atomic_store(&b->full_ns, now + SECOND); /* what it holds now is used up */
}
