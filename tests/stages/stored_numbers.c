/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers into a cache and out of it: every pattern of the half-width types, and their rounding
 * between any two neighbours, against the definitions in tests/ref/stored.c. */
#include <math.h>
#include <string.h>

#include "context.h"
#include "ref/stored.h"
#include "stored_case.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { LONGEST = 512, PANEL_NUMBERS = QKV_PANEL * LONGEST };

static const struct {
    int type;
    enum ref_format format;
} halves[] = {{QKV_STORED_F16, REF_F16}, {QKV_STORED_BF16, REF_BF16}};

static const struct qkv_cache_kernels *kernels_of(int room) {
    return qkv_context_get(&rooms_get(room)->context)->table.cache;
}

/* Is it the turn of this pattern, in a run of fewer cases? */
static bool is_due(uint32_t i) {
    return test_takes(i, test_stride());
}

/* ---- Out of a panel ---- */

static bool same_float(float x, float y) {
    return isnan(x) ? isnan(y) : memcmp(&x, &y, sizeof x) == 0;
}

/* Rows [from, to) of a panel as floats; the others are not written. */
static void check_unpacked(const struct panels *p, const struct guard *floats, ptrdiff_t from,
                           ptrdiff_t to, const char *what) {
    const float *got = (const float *)floats->data;
    const uint32_t canary = GUARD_CANARY;
    for (ptrdiff_t i = 0; i < to * p->width; i++) {
        const bool written = i >= from * p->width;
        if (written ? same_float(got[i], p->numbers[i])
                    : memcmp(&got[i], &canary, sizeof canary) == 0)
            continue;
        ck_abort_msg("%s %s, step %d: %a, not %a", stored_names[p->type], what, (int)(i / p->width),
                     (double)got[i], written ? (double)p->numbers[i] : NAN);
    }
    ck_assert(guard_intact(floats));
}

static void check_keys_out(const struct qkv_cache_kernels *kernels, const struct panels *p) {
    struct guard floats =
        guard_alloc((size_t)(p->steps * p->width) * sizeof(float), sizeof(float), GUARD_END, 0);
    kernels->unpack_keys[p->type]((float *)floats.data, p->panel[0], p->steps);
    check_unpacked(p, &floats, 0, p->steps, "keys");
    guard_free(&floats);
}

static void check_values_out(const struct qkv_cache_kernels *kernels, const struct panels *p,
                             int from, int to) {
    struct guard floats =
        guard_alloc((size_t)(to * p->width) * sizeof(float), sizeof(float), GUARD_END, 0);
    kernels->unpack_values[p->type]((float *)floats.data, p->panel[0], from, to, p->width);
    check_unpacked(p, &floats, from, to, "values");
    guard_free(&floats);
}

START_TEST(panels_come_out_as_they_are) {
    const struct qkv_cache_kernels *kernels = kernels_of(_i);
    for (int type = 0; type < QKV_STORED_COUNT; type++)
        for (int i = 1; i <= 65; i += i < 18 ? 1 : 7) {
            struct panels keys = panels_make(type, 1, i, QKV_PANEL, (uint64_t)i, true);
            struct panels values =
                panels_make(type, 1, QKV_PANEL, QKV_PANEL * (1 + i % 5), (uint64_t)i, true);
            const int from = i % QKV_PANEL;
            check_keys_out(kernels, &keys);
            check_values_out(kernels, &values, from, from + 1 + i / 5 % (QKV_PANEL - from));
            panels_free(&keys);
            panels_free(&values);
        }
}
END_TEST

START_TEST(every_half_is_the_number_that_it_stands_for) {
    const struct qkv_cache_kernels *kernels = kernels_of(_i);
    for (int half = 0; half < 2; half++) {
        struct panels keys = panels_make(halves[half].type, 1, LONGEST, QKV_PANEL, 0, false);
        struct panels values = panels_make(halves[half].type, 1, QKV_PANEL, LONGEST, 0, false);
        for (uint32_t first = 0; first < 0x10000; first += PANEL_NUMBERS) {
            for (uint32_t i = 0; i < PANEL_NUMBERS; i++) {
                panels_put(&keys, 0, i / QKV_PANEL, i % QKV_PANEL, first + i);
                panels_put(&values, 0, i / LONGEST, i % LONGEST, first + i);
            }
            check_keys_out(kernels, &keys);
            check_values_out(kernels, &values, 0, QKV_PANEL);
        }
        panels_free(&keys);
        panels_free(&values);
    }
}
END_TEST

/* ---- Into a panel ---- */

/* Floats that wait until there are enough for a panel: 16 rows of 512; and what each should be. */
struct batch {
    const struct qkv_cache_kernels *kernels;
    int type, count;
    enum ref_format format;
    struct panels keys, values;
    float rows[PANEL_NUMBERS];
    double want[PANEL_NUMBERS];
};

static void check_number(const struct batch *b, int number, uint32_t bits, const char *by) {
    const double got = ref_format_value(b->format, bits), want = b->want[number];
    if (isnan(want) ? !isnan(got) : got != want || !signbit(got) != !signbit(want))
        ck_abort_msg("%s by %s: %a became %04x = %a, not %a", stored_names[b->type], by,
                     (double)b->rows[number], bits, got, want);
}

static void check_keys_in(const struct batch *b, const char *by) {
    for (int i = 0; i < PANEL_NUMBERS; i++)
        check_number(b, i, panels_bits(&b->keys, 0, i % LONGEST, i / LONGEST), by);
}

/* As sixteen keys, as one key sixteen times, and as values. */
static void store_batch(struct batch *b) {
    const struct qkv_cache_kernels *kernels = b->kernels;
    kernels->append_keys[b->type](b->keys.memory[0].data, NULL, 0, b->rows, LONGEST, QKV_PANEL,
                                  LONGEST);
    check_keys_in(b, "sixteen keys");
    memset(b->keys.memory[0].data, 0x55, b->keys.memory[0].size);
    for (int r = QKV_PANEL; r-- > 0;)
        kernels->append_keys[b->type](b->keys.memory[0].data, NULL, r, b->rows + r * LONGEST,
                                      LONGEST, 1, LONGEST);
    check_keys_in(b, "one key");
    kernels->append_values[b->type](b->values.memory[0].data, NULL, 0, b->rows, LONGEST, QKV_PANEL,
                                    LONGEST);
    for (int i = 0; i < PANEL_NUMBERS; i++)
        check_number(b, i, panels_bits(&b->values, 0, i / LONGEST, i % LONGEST), "values");
    b->count = 0;
}

static void add_number(struct batch *b, float x) {
    b->want[b->count] = ref_format_rounded(b->format, (double)x);
    b->rows[b->count++] = x;
    if (b->count == PANEL_NUMBERS)
        store_batch(b);
}

/* A number, and around the middle of the way to the next, where a tie goes to the even one. */
static void add_neighbours(struct batch *b, uint32_t bits) {
    const double low = ref_format_value(b->format, bits);
    double high = ref_format_value(b->format, bits + 1);
    if (isinf(high))
        high = 2 * low - ref_format_value(b->format, bits - 1);
    const float middle = (float)((low + high) / 2);
    if ((double)middle != (low + high) / 2)
        ck_abort_msg("no float is halfway above %04x", bits);
    for (float sign = -1; sign <= 1; sign += 2) {
        add_number(b, sign * (float)low);
        add_number(b, sign * nextafterf(middle, 0.0F));
        add_number(b, sign * middle);
        add_number(b, sign * nextafterf(middle, INFINITY));
    }
}

static void add_patterns(struct batch *b) {
    static const uint32_t odd[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff,
                                   0x7f800001, 0xff800001, 0x7f802000, 0x7f7fffff};
    struct rng rng = rng_seeded(test_seed());
    for (int i = 0; i < 20000; i++) {
        const uint32_t bits = i < 8 ? odd[i] : (uint32_t)rng_next(&rng);
        float x;
        memcpy(&x, &bits, sizeof x);
        if (i < 8 || is_due((uint32_t)i))
            add_number(b, x);
    }
}

static void add_all(struct batch *b) {
    const int fraction = ref_fraction_bits(b->format);
    const uint32_t infinite = 0x7fff >> fraction << fraction;
    add_patterns(b);
    for (uint32_t bits = 0; bits < infinite; bits++)
        if (is_due(bits) || bits + 1 == infinite || bits < 4)
            add_neighbours(b, bits);
    while (b->count)
        add_number(b, 1.0F);
}

START_TEST(numbers_are_rounded_to_the_nearest) {
    static struct batch b;
    for (int half = 0; half < 2; half++) {
        b.kernels = kernels_of(_i);
        b.type = halves[half].type;
        b.format = halves[half].format;
        b.keys = panels_make(b.type, 1, LONGEST, QKV_PANEL, 1, false);
        b.values = panels_make(b.type, 1, QKV_PANEL, LONGEST, 1, false);
        add_all(&b);
        panels_free(&b.keys);
        panels_free(&b.values);
    }
}
END_TEST

void stored_add_number_tests(TCase *tcase) {
    const TTest *const room_tests[] = {
        panels_come_out_as_they_are,
        every_half_is_the_number_that_it_stands_for,
        numbers_are_rounded_to_the_nearest,
    };
    tcase_add_room_tests(tcase, room_tests, sizeof room_tests / sizeof *room_tests);
}
