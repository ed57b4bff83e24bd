/* SPDX-License-Identifier: Apache-2.0 */
/* The names of features and rooms, which room a feature belongs to, and what the environment takes
 * away: QKV_CPU_MAX names the highest room, QKV_CPU_DISABLE single features, separated by commas.
 * Names that mean nothing on this architecture are kept for qkv_cpu_unknown_overrides and change
 * nothing. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

static const char *const feature_names[QKV_CPU_COUNT] = {
#define NAME(name, text) [QKV_CPU_##name] = (text),
    QKV_CPU_FEATURES(NAME)
#undef NAME
};

static const struct {
    const char *name;
    int native, built;
} rooms[QKV_ISA_COUNT] = {
#define ROOM(folder, name, native, built, needs) [QKV_ISA_##name] = {#folder, native, built},
#include "isa.def"
#undef ROOM
};

/* The lowest room whose registers a feature uses: with a room capped away go all the features that
 * only work there, those that no kernel asks for included. */
static const unsigned char home[QKV_CPU_COUNT] = {
    [QKV_CPU_AVX2] = QKV_ISA_AVX2,         [QKV_CPU_FMA] = QKV_ISA_AVX2,
    [QKV_CPU_F16C] = QKV_ISA_AVX2,         [QKV_CPU_AVXVNNI] = QKV_ISA_AVX2,
    [QKV_CPU_AVX512F] = QKV_ISA_AVX512,    [QKV_CPU_AVX512BW] = QKV_ISA_AVX512,
    [QKV_CPU_AVX512DQ] = QKV_ISA_AVX512,   [QKV_CPU_AVX512VL] = QKV_ISA_AVX512,
    [QKV_CPU_AVX512VNNI] = QKV_ISA_AVX512, [QKV_CPU_AVX512BF16] = QKV_ISA_AVX512,
    [QKV_CPU_AVX512FP16] = QKV_ISA_AVX512, [QKV_CPU_NEON] = QKV_ISA_NEON,
    [QKV_CPU_FP16] = QKV_ISA_NEON,         [QKV_CPU_DOTPROD] = QKV_ISA_NEON,
    [QKV_CPU_BF16] = QKV_ISA_NEON,         [QKV_CPU_I8MM] = QKV_ISA_NEON,
};

const char *qkv_cpu_feature_name(int feature) {
    return feature >= 0 && feature < QKV_CPU_COUNT ? feature_names[feature] : NULL;
}

const char *qkv_isa_name(int isa) {
    return isa > QKV_ISA_NONE && isa < QKV_ISA_COUNT ? rooms[isa].name : NULL;
}

int qkv_isa_built(int isa) {
    return isa > QKV_ISA_NONE && isa < QKV_ISA_COUNT && rooms[isa].built;
}

uint64_t qkv_cpu_features_of(int isa) {
    uint64_t features = 0;
    for (int i = 0; i < QKV_CPU_COUNT; i++)
        if (home[i] == isa)
            features |= QKV_CPU_BIT(i);
    return features;
}

uint64_t qkv_cpu_features_up_to(int isa) {
    uint64_t features = 0;
    for (int i = QKV_ISA_NONE + 1; i <= isa; i++)
        features |= qkv_cpu_features_of(i);
    return features;
}

/* A part of an override's value: one name, not terminated. */
struct span {
    const char *text;
    size_t length;
};

static int span_is(struct span span, const char *name) {
    return strlen(name) == span.length && memcmp(span.text, name, span.length) == 0;
}

/* The next name of a list, without the blanks around it; *list moves past its comma, and becomes
 * NULL after the last name. */
static struct span next_name(const char **list) {
    const char *text = *list + strspn(*list, " \t");
    size_t whole = strcspn(text, ",");
    struct span span = {text, whole};

    while (span.length > 0 && strchr(" \t", text[span.length - 1]) != NULL)
        span.length--;
    *list = text[whole] == ',' ? text + whole + 1 : NULL;
    return span;
}

/* Appends to the list of unknown names, as much as there is room for. An empty name is none. */
static void note_unknown(char unknown[QKV_CPU_UNKNOWN_MAX], struct span name) {
    size_t used = strlen(unknown);
    size_t left;

    if (name.length == 0)
        return;
    if (used > 0 && used < QKV_CPU_UNKNOWN_MAX - 1)
        unknown[used++] = ',';
    left = QKV_CPU_UNKNOWN_MAX - 1 - used;
    if (name.length > left)
        name.length = left;
    memcpy(unknown + used, name.text, name.length);
    unknown[used + name.length] = '\0';
}

static int find_room(struct span name) {
    for (int i = QKV_ISA_NONE + 1; i < QKV_ISA_COUNT; i++)
        if (rooms[i].native && span_is(name, rooms[i].name))
            return i;
    return QKV_ISA_NONE;
}

static int find_feature(struct span name) {
    for (int i = 0; i < QKV_CPU_COUNT; i++)
        if (rooms[home[i]].native && span_is(name, feature_names[i]))
            return i;
    return QKV_CPU_COUNT;
}

/* What a cap leaves. The whole value is one name. */
static uint64_t left_by_max(const char *max, char unknown[QKV_CPU_UNKNOWN_MAX]) {
    struct span name = {max, strlen(max)};
    int isa = find_room(name);

    if (isa != QKV_ISA_NONE)
        return qkv_cpu_features_up_to(isa);
    note_unknown(unknown, name);
    return UINT64_MAX;
}

static uint64_t left_by_disable(const char *list, char unknown[QKV_CPU_UNKNOWN_MAX]) {
    uint64_t left = UINT64_MAX;

    while (list != NULL) {
        struct span name = next_name(&list);
        int feature = find_feature(name);
        if (feature < QKV_CPU_COUNT)
            left &= ~QKV_CPU_BIT(feature);
        else
            note_unknown(unknown, name);
    }
    return left;
}

void qkv_cpu_override(struct qkv_cpu_report *report, const char *max, const char *disable) {
    uint64_t left = UINT64_MAX;

    report->unknown[0] = '\0';
    if (max != NULL)
        left &= left_by_max(max, report->unknown);
    if (disable != NULL)
        left &= left_by_disable(disable, report->unknown);
    report->removed = report->detected & ~report->withheld & ~left;
}

void qkv_cpu_read(struct qkv_cpu_report *report) {
    struct qkv_cpu_words words;

    qkv_cpu_ask(&words);
    qkv_cpu_decode(report, &words);
    qkv_cpu_ask_caches(report);
    report->follows = qkv_cpu_ask_follows();
    report->halves = qkv_cpu_ask_halves();
    qkv_cpu_override(report, getenv("QKV_CPU_MAX"), getenv("QKV_CPU_DISABLE"));
}
