/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a context per room, and reads the environment that steers a suite. */
#include "rooms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <qkv/cache.h>

enum { FULL_RUN = 2000, WHOLE_SWEEPS = 15, EXIT_SKIPPED = 77, TIMEOUT_SECONDS = 1800 };

static struct room runnable[QKV_ISA_COUNT];
static int runnable_count;
static struct room opened[QKV_ISA_COUNT];
static struct room scalar;
static int count;
static uint64_t seed = 1;
static int cases = QKV_TEST_CASES; /* from meson: fewer under emulation */
static int only = -1;
static const char *left_out;

/* ---- Variants for features beyond those that a room needs ---- */

#define BIT(feature) ((uint64_t)1 << QKV_CPU_##feature)

static const uint64_t optional = BIT(AVXVNNI) | BIT(AVX512VNNI) | BIT(AVX512BF16) |
                                 BIT(AVX512FP16) | BIT(FP16) | BIT(DOTPROD) | BIT(BF16) | BIT(I8MM);

static const char *variant;
static int32_t narrow_dtype = QKV_DTYPE_NONE;

/* The features to do without, so that of all variants only the one that is asked for is left. */
static uint64_t disabled_features(void) {
    uint64_t disabled = variant ? optional : 0;
    for (int i = 0; variant && i < QKV_CPU_COUNT; i++)
        if (strcmp(qkv_cpu_feature_name(i), variant) == 0)
            disabled &= ~((uint64_t)1 << i);
    if (variant && strcmp(variant, "i8mm") == 0)
        disabled &= ~BIT(DOTPROD); /* which it needs as well */
    return disabled;
}

/* The type that the variant computes with, if the context has it. */
static int32_t dtype_of_variant(const qkv_context *context) {
    for (int32_t dtype = QKV_DTYPE_NONE + 1; dtype < QKV_DTYPE_COUNT; dtype++) {
        const char *name = qkv_narrow_variant(context, dtype);
        if (name && strcmp(name, variant) == 0)
            return dtype;
    }
    return QKV_DTYPE_NONE;
}

int32_t test_narrow_dtype(void) {
    return narrow_dtype;
}

/* ---- Rooms ---- */

static bool open_room(struct room *room, int isa) {
    qkv_context_config config;
    qkv_context_config_init(&config);
    config.isa_max = isa;
    config.disabled = disabled_features();
    room->name = qkv_isa_name(isa);
    return qkv_context_init(&room->context, &config) == QKV_OK &&
           (int)qkv_context_isa(&room->context) == isa;
}

/* Is this the room to test, with the variant if one is asked for? */
static bool is_wanted(const struct room *room) {
    const char *wanted = getenv("QKV_TEST_ROOM");
    if (wanted && strcmp(wanted, room->name) != 0)
        return false;
    if (!variant)
        return true;
    narrow_dtype = dtype_of_variant(&room->context);
    if (narrow_dtype == QKV_DTYPE_NONE)
        printf("skipped: %s, which this CPU cannot run in room %s\n", variant, room->name);
    return narrow_dtype != QKV_DTYPE_NONE;
}

static void open_rooms(void) {
    const char *wanted = getenv("QKV_TEST_ROOM");
    for (int isa = QKV_ISA_NONE + 1; isa < QKV_ISA_COUNT; isa++) {
        struct room *room = &runnable[runnable_count];
        bool asked_for = !wanted || strcmp(wanted, qkv_isa_name(isa)) == 0;
        if (!qkv_isa_built(isa))
            continue;
        if (!open_room(room, isa)) {
            if (asked_for)
                printf("skipped: room %s, which this CPU cannot run\n", room->name);
            continue;
        }
        runnable_count++;
        if (is_wanted(room))
            opened[count++] = *room;
    }
}

static void read_numbers(void) {
    const char *text = getenv("QKV_TEST_SEED");
    if (text)
        seed = strcmp(text, "time") == 0 ? (uint64_t)time(NULL) : strtoull(text, NULL, 0);
    text = getenv("QKV_TEST_CASES");
    if (text && atoi(text) > 0)
        cases = atoi(text);
    text = getenv("QKV_TEST_ONLY");
    if (text)
        only = atoi(text);
    variant = getenv("QKV_TEST_VARIANT");
    left_out = getenv("QKV_TEST_LEAVE_OUT");
}

int rooms_count(void) {
    return count;
}

const struct room *rooms_get(int i) {
    return &opened[i];
}

int rooms_runnable_count(void) {
    return runnable_count;
}

const struct room *rooms_runnable(int i) {
    return &runnable[i];
}

const struct room *rooms_scalar(void) {
    return &scalar;
}

uint64_t test_seed(void) {
    return seed;
}

int test_cases(void) {
    return cases;
}

int test_only(void) {
    return only;
}

int test_stride(void) {
    return cases >= FULL_RUN ? 1 : FULL_RUN / cases;
}

int test_thinning(void) {
    return cases >= WHOLE_SWEEPS ? 1 : (2 * WHOLE_SWEEPS / cases - 1) | 1;
}

/* The fractions of the golden ratio's multiples lie evenly in every interval, and the numbers whose
 * fractions lie in one of length 1 / one_in are two or three distances apart that have no divisor
 * in common (the three-distance theorem). */
bool test_takes(uint64_t number, int one_in) {
    const uint64_t golden = 0x9e3779b97f4a7c15;
    return number == 0 || (number + seed) * golden <= UINT64_MAX / (uint64_t)one_in;
}

int test_next(int number, int one_in) {
    do
        number++;
    while (!test_takes((uint64_t)number, one_in));
    return number;
}

int suite_main(Suite *(*make)(void)) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_numbers();
    open_rooms();
    if (!open_room(&scalar, QKV_ISA_SCALAR)) {
        printf("the scalar room does not open\n");
        return EXIT_FAILURE;
    }
    if (count == 0)
        return EXIT_SKIPPED;
    printf("QKV_TEST_SEED=%llu QKV_TEST_CASES=%d rooms:", (unsigned long long)seed, cases);
    for (int i = 0; i < count; i++)
        printf(" %s", opened[i].name);
    if (variant)
        printf(" with %s", variant);
    printf("\n");
    SRunner *runner = srunner_create(make());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Is the name among those, separated by commas, that QKV_TEST_LEAVE_OUT has? */
static bool is_left_out(const char *name) {
    const size_t length = strlen(name);
    for (const char *at = left_out; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

void tcase_add_room_test(TCase *tcase, const TTest *test) {
    if (is_left_out(test->name))
        return;
    tcase_set_timeout(tcase, TIMEOUT_SECONDS);
    tcase_add_loop_test(tcase, test, 0, count);
}

void tcase_add_room_tests(TCase *tcase, const TTest *const *tests, int test_count) {
    for (int i = 0; i < test_count; i++)
        tcase_add_room_test(tcase, tests[i]);
}
