/* block.c: blocks, their size classes and the cache of freed ones. See block.h.
 *
 * Capacities go in steps of an eighth to a quarter (four to a power of two), so that little is lost
 * and freed blocks fit again. Small blocks go back to a list of the freeing thread, without a lock;
 * what does not fit there, and large ones, to lists of the process behind a mutex. A 4 MiB body
 * read into fresh pages costs a thousand page faults: that is what the cache is for.
 */
#include "collector/base/block.h"

#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "collector/base/arena.h"

#define CLASS_SHIFT    6 /* the least capacity is 4 << 6 */
#define CLASSES        120
#define FROM_MMAP_OVER ((size_t)1 << 20)
#define SMALL          ((size_t)64 * 1024)
#define THREAD_CACHE   ((size_t)256 * 1024)
#define PROCESS_CACHE  ((size_t)16 << 20)
#define PROCESS_MOST   ((size_t)64 << 20)
#define MAPPING_SLACK  ((size_t)4096) /* keeps a mapping whole pages; at least FLUE_BLOCK_SLACK */

struct thread_cache {
    struct flue_block *lists[CLASSES];
    size_t bytes;
    bool known; /* to the cache_key, whose destructor gives the lists back */
    bool busy;  /* took a block since its last flue_block_idle */
    uint32_t seen;
};

static struct {
    pthread_mutex_t lock;
    struct flue_block *lists[CLASSES];
    _Atomic size_t bytes;
    _Atomic size_t live, peak; /* capacity of large blocks in use, and its most since a trim */
    _Atomic uint32_t activity; /* moves while any thread takes blocks */
} process_cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct thread_cache thread_cache;
static pthread_once_t cache_key_once = PTHREAD_ONCE_INIT;
static pthread_key_t cache_key;
static bool cache_key_made;

static size_t class_capacity(uint32_t index)
{
    return (size_t)(4 + index % 4) << (CLASS_SHIFT + index / 4);
}

/* The least class that holds `capacity`, or CLASSES. */
static uint32_t class_of(size_t capacity)
{
    unsigned top;
    uint32_t index;

    if (capacity <= class_capacity(0))
        return 0;
    if (capacity > class_capacity(CLASSES - 1))
        return CLASSES;
    top = 63 - (unsigned)__builtin_clzll(capacity);
    index = (top - CLASS_SHIFT - 2) * 4 + ((uint32_t)(capacity >> (top - 2)) & 3);
    return class_capacity(index) < capacity ? index + 1 : index;
}

static uint8_t *memory_new(size_t capacity)
{
    void *memory;

    if (capacity <= FROM_MMAP_OVER)
        return malloc(capacity + FLUE_BLOCK_SLACK);
    memory = mmap(NULL, capacity + MAPPING_SLACK, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void block_free(struct flue_block *block)
{
    size_t capacity = class_capacity(block->size_class);

    if (capacity <= PROCESS_CACHE) /* others are never poisoned */
        ASAN_UNPOISON_MEMORY_REGION(block->base, capacity + FLUE_BLOCK_SLACK);
    if (capacity <= FROM_MMAP_OVER)
        free(block->base);
    else
        munmap(block->base, capacity + MAPPING_SLACK);
    free(block);
}

static void list_free(struct flue_block *block)
{
    while (block) {
        struct flue_block *next = block->next;

        block_free(block);
        block = next;
    }
}

static void thread_cache_free(void *arg)
{
    struct thread_cache *cache = arg;

    for (size_t i = 0; i < CLASSES; i++) {
        list_free(cache->lists[i]);
        cache->lists[i] = NULL;
    }
    cache->bytes = 0;
    cache->known = false; /* a later destructor of this thread may free blocks again */
}

static void cache_key_make(void)
{
    cache_key_made = pthread_key_create(&cache_key, thread_cache_free) == 0;
}

/* Without the destructor a thread's lists would leak when it ends: then it has none. */
static bool thread_cache_usable(struct thread_cache *cache)
{
    if (!cache->known) {
        pthread_once(&cache_key_once, cache_key_make);
        cache->known = cache_key_made && pthread_setspecific(cache_key, cache) == 0;
    }
    return cache->known;
}

static struct flue_block *cache_take(uint32_t index)
{
    size_t capacity = class_capacity(index);
    struct thread_cache *own = &thread_cache;
    struct flue_block *block = own->lists[index];

    if (block) {
        own->lists[index] = block->next;
        own->bytes -= capacity;
    } else if (atomic_load_explicit(&process_cache.bytes, memory_order_relaxed) >= capacity) {
        pthread_mutex_lock(&process_cache.lock);
        block = process_cache.lists[index];
        if (block) {
            process_cache.lists[index] = block->next;
            atomic_fetch_sub_explicit(&process_cache.bytes, capacity, memory_order_relaxed);
        }
        pthread_mutex_unlock(&process_cache.lock);
    }
    if (block)
        ASAN_UNPOISON_MEMORY_REGION(block->base, capacity + FLUE_BLOCK_SLACK);
    return block;
}

static void live_add(size_t capacity)
{
    size_t live, peak;

    if (capacity <= SMALL)
        return;
    live = atomic_fetch_add_explicit(&process_cache.live, capacity, memory_order_relaxed);
    peak = atomic_load_explicit(&process_cache.peak, memory_order_relaxed);
    if (live + capacity > peak)
        atomic_store_explicit(&process_cache.peak, live + capacity, memory_order_relaxed);
}

static void live_remove(size_t capacity)
{
    if (capacity > SMALL)
        atomic_fetch_sub_explicit(&process_cache.live, capacity, memory_order_relaxed);
}

/* What is in use and what is kept together stay under the peak of what was in use: large bodies
 * that end together leave their pages to the next ones, and the process gets no larger by it. */
static size_t process_room(void)
{
    size_t live = atomic_load_explicit(&process_cache.live, memory_order_relaxed);
    size_t peak = atomic_load_explicit(&process_cache.peak, memory_order_relaxed);
    size_t room = peak > live ? peak - live : 0;

    return room < PROCESS_CACHE ? PROCESS_CACHE : room < PROCESS_MOST ? room : PROCESS_MOST;
}

/* False: the caches are full, the block is the caller's to free. */
static bool cache_put(struct flue_block *block)
{
    size_t capacity = class_capacity(block->size_class), room;
    struct thread_cache *own = &thread_cache;
    bool kept = false;

    if (capacity > PROCESS_CACHE)
        return false;
    ASAN_POISON_MEMORY_REGION(block->base, capacity + FLUE_BLOCK_SLACK);
    if (capacity <= SMALL && own->bytes + capacity <= THREAD_CACHE && thread_cache_usable(own)) {
        block->next = own->lists[block->size_class];
        own->lists[block->size_class] = block;
        own->bytes += capacity;
        return true;
    }
    room = process_room();
    if (atomic_load_explicit(&process_cache.bytes, memory_order_relaxed) + capacity > room)
        return false;
    pthread_mutex_lock(&process_cache.lock);
    if (atomic_load_explicit(&process_cache.bytes, memory_order_relaxed) + capacity <= room) {
        block->next = process_cache.lists[block->size_class];
        process_cache.lists[block->size_class] = block;
        atomic_fetch_add_explicit(&process_cache.bytes, capacity, memory_order_relaxed);
        kept = true;
    }
    pthread_mutex_unlock(&process_cache.lock);
    return kept;
}

void flue_block_trim(void)
{
    struct flue_block *lists[CLASSES];

    thread_cache_free(&thread_cache);
    pthread_mutex_lock(&process_cache.lock);
    memcpy(lists, process_cache.lists, sizeof lists);
    memset(process_cache.lists, 0, sizeof lists);
    atomic_store_explicit(&process_cache.bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&process_cache.peak,
                          atomic_load_explicit(&process_cache.live, memory_order_relaxed),
                          memory_order_relaxed);
    pthread_mutex_unlock(&process_cache.lock);
    for (size_t i = 0; i < CLASSES; i++)
        list_free(lists[i]);
}

bool flue_block_idle(void)
{
    struct thread_cache *own = &thread_cache;
    uint32_t activity = atomic_load_explicit(&process_cache.activity, memory_order_relaxed);
    bool idle = activity == own->seen;

    own->seen = activity;
    own->busy = false;
    return idle;
}

struct flue_block *flue_block_new(struct flue_account *account, size_t capacity)
{
    uint32_t index = class_of(capacity);
    struct flue_block *block;

    if (index == CLASSES)
        return NULL;
    if (!thread_cache.busy) {
        thread_cache.busy = true;
        atomic_fetch_add_explicit(&process_cache.activity, 1, memory_order_relaxed);
    }
    block = cache_take(index);
    if (!block) {
        block = malloc(sizeof *block);
        if (!block)
            return NULL;
        block->size_class = index;
        block->base = memory_new(class_capacity(index));
        if (!block->base) {
            free(block);
            return NULL;
        }
    }
    live_add(class_capacity(index));
    atomic_store_explicit(&block->refs, 1, memory_order_relaxed);
    block->account = account;
    block->charged = block->size = 0;
    block->capacity = class_capacity(index);
    block->data = block->base;
    block->next = NULL;
    return block;
}

struct flue_block *flue_block_copy(struct flue_account *account, struct flue_bytes b)
{
    struct flue_block *block = flue_block_new(account, b.size);

    if (!block)
        return NULL;
    if (b.size)
        memcpy(block->data, b.data, b.size);
    block->size = b.size;
    flue_block_finish(block);
    if (!flue_block_charge(block)) {
        flue_block_unref(block);
        return NULL;
    }
    return block;
}

/* Into a larger class; the kernel moves the pages of a mapping instead of copying them. */
static bool grow_block(struct flue_block *block, size_t capacity)
{
    uint32_t index = class_of(capacity);
    size_t old = class_capacity(block->size_class), offset = (size_t)(block->data - block->base);
    struct flue_block *larger;

    if (index == CLASSES)
        return false;
    if (old > FROM_MMAP_OVER) {
        void *moved = mremap(block->base, old + MAPPING_SLACK,
                             class_capacity(index) + MAPPING_SLACK, MREMAP_MAYMOVE);

        if (moved == MAP_FAILED)
            return false;
        live_remove(old);
        live_add(class_capacity(index));
        block->base = moved;
        block->data = block->base + offset;
        block->size_class = index;
        block->capacity = class_capacity(index) - offset;
        return true;
    }
    larger = flue_block_new(NULL, capacity);
    if (!larger)
        return false;
    memcpy(larger->data, block->data, block->size);
    uint8_t *base = block->base;
    uint32_t size_class = block->size_class;
    block->base = block->data = larger->base;
    block->size_class = larger->size_class;
    block->capacity = larger->capacity;
    larger->base = base;
    larger->size_class = size_class;
    flue_block_unref(larger);
    return true;
}

enum flue_code flue_block_reserve(struct flue_block *block, size_t more, size_t maximum,
                                  struct flue_error *error)
{
    size_t offset = (size_t)(block->data - block->base), needed, wanted;

    if (__builtin_add_overflow(block->size, more, &needed) || needed > maximum)
        return flue_fail(error, FLUE_TOO_LARGE,
                         "%zu bytes and %zu more pass the limit of %zu bytes", block->size, more,
                         maximum);
    if (needed <= block->capacity)
        return FLUE_OK;
    if (needed <= block->capacity + offset && offset >= block->size) {
        memcpy(block->base, block->data, block->size);
        block->data = block->base;
        block->capacity += offset;
        return FLUE_OK;
    }
    wanted = block->capacity * 2;
    if (wanted > maximum)
        wanted = maximum;
    if (wanted < needed)
        wanted = needed;
    if (wanted > SIZE_MAX / 2 || !grow_block(block, wanted + offset))
        return flue_fail(error, FLUE_NO_MEMORY, "no memory for a block of %zu bytes", wanted);
    return FLUE_OK;
}

enum flue_code flue_block_append(struct flue_block *block, struct flue_bytes b, size_t maximum,
                                 struct flue_error *error)
{
    enum flue_code code = flue_block_reserve(block, b.size, maximum, error);

    if (code == FLUE_OK && b.size) {
        memcpy(block->data + block->size, b.data, b.size);
        block->size += b.size;
    }
    return code;
}

void flue_block_skip(struct flue_block *block, size_t count)
{
    if (count > block->size)
        count = block->size;
    block->data += count;
    block->size -= count;
    block->capacity -= count;
}

bool flue_block_charge(struct flue_block *block)
{
    if (block->account && block->size > block->charged &&
        !flue_account_charge(block->account, block->size - block->charged))
        return false;
    if (block->account && block->size < block->charged)
        flue_account_release(block->account, block->charged - block->size);
    block->charged = block->account ? block->size : 0;
    return true;
}

void flue_block_finish(struct flue_block *block)
{
    memset(block->data + block->size, 0, FLUE_BLOCK_SLACK);
}

void flue_block_recharge(struct flue_block *block, struct flue_account *account)
{
    size_t bytes = block->account ? block->charged : block->size;

    if (block->account == account)
        return;
    if (account)
        flue_account_charge_always(account, bytes);
    if (block->account)
        flue_account_release(block->account, block->charged);
    block->account = account;
    block->charged = account ? bytes : 0;
}

struct flue_block *flue_block_ref(struct flue_block *block)
{
    atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
    return block;
}

void flue_block_unref(struct flue_block *block)
{
    if (!block || atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (block->account && block->charged)
        flue_account_release(block->account, block->charged);
    live_remove(class_capacity(block->size_class));
    if (!cache_put(block))
        block_free(block);
}

bool flue_slices_add(struct flue_slices *slices, struct flue_arena *arena, struct flue_bytes b)
{
    if (b.size == 0)
        return true;
    if (!FLUE_ARENA_PUSH(arena, slices->items, slices->count, slices->room, b))
        return false;
    slices->total += b.size;
    return true;
}

void flue_slices_copy(const struct flue_slices *slices, uint8_t *out)
{
    for (size_t i = 0; i < slices->count; i++) {
        memcpy(out, slices->items[i].data, slices->items[i].size);
        out += slices->items[i].size;
    }
}
