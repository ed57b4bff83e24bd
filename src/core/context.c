/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: which room's kernels a set of features allows. The table is filled from the lowest room
 * up, each overlaying the entries that it has, as isa.def lists them; a context never changes once
 * it is bound. */
#include "context.h"

#include "cpu.h"
#include "param_size.h"
#include "startup.h"

#define BIT(feature) QKV_CPU_BIT(QKV_CPU_##feature)

/* Rooms that are not built have no code here; the constant condition drops the reference. */
static const struct {
    int isa;
    uint64_t needs;
    void (*init)(struct qkv_table *table, uint64_t features);
} rooms[] = {
#define ROOM(folder, name, native, built, needs) \
    {QKV_ISA_##name, (needs), (built) ? qkv_##folder##_init : NULL},
#include "isa.def"
#undef ROOM
};

static const char *const stage_names[QKV_STAGE_COUNT] = {
    [QKV_STAGE_PROJECT] = "project",
    [QKV_STAGE_SCORES] = "scores",
    [QKV_STAGE_SOFTMAX] = "softmax",
    [QKV_STAGE_MIX] = "mix",
    [QKV_STAGE_ATTENTION] = "attention",
    [QKV_STAGE_PROJECT_BACKWARD] = "project_backward",
    [QKV_STAGE_SCORES_BACKWARD] = "scores_backward",
    [QKV_STAGE_SOFTMAX_BACKWARD] = "softmax_backward",
    [QKV_STAGE_MIX_BACKWARD] = "mix_backward",
    [QKV_STAGE_ATTENTION_BACKWARD] = "attention_backward",
    [QKV_STAGE_LOSS] = "loss",
    [QKV_STAGE_DESCENT] = "descent",
    [QKV_STAGE_APPEND] = "append",
    [QKV_STAGE_ROTATE] = "rotate",
    [QKV_STAGE_DECODE] = "decode",
    [QKV_STAGE_MERGE] = "merge",
};

const char *qkv_stage_name(int stage) {
    return stage >= 0 && stage < QKV_STAGE_COUNT ? stage_names[stage] : NULL;
}

void qkv_bind_narrow(struct qkv_table *table, uint64_t features,
                     const struct qkv_narrow_variant *variants, size_t count) {
    for (size_t i = 0; i < count; i++)
        if ((features & variants[i].needs) == variants[i].needs)
            table->narrow[variants[i].type] = variants[i].kernels;
}

void qkv_context_bind(struct qkv_context_state *state, uint64_t features, int isa_max) {
    *state = (struct qkv_context_state){.magic = QKV_CONTEXT_MAGIC, .features = features};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        if (isa_max != QKV_ISA_NONE && rooms[i].isa > isa_max)
            break;
        if (rooms[i].init == NULL || (features & rooms[i].needs) != rooms[i].needs)
            continue;
        rooms[i].init(&state->table, features);
        state->isa = rooms[i].isa;
    }
}

void qkv_context_tell(struct qkv_context_state *state, const struct qkv_cpu_report *cpu) {
    state->table.second_cache = cpu->second_cache;
    state->table.last_cache = cpu->last_cache;
    state->table.follows = cpu->follows;
    state->table.halves = cpu->halves;
}

void qkv_context_config_init(qkv_context_config *config) {
    if (config != NULL)
        *config = (qkv_context_config){.size = sizeof *config};
}

static qkv_status check_config(const qkv_context_config *config) {
    if (config->flags != 0)
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    if (config->disabled >> QKV_CPU_COUNT != 0)
        return qkv_fail(QKV_ARG_CONFIG, QKV_FAULT_FLAG);
    if (config->reserved != 0)
        return qkv_fail(QKV_ARG_CONFIG, QKV_FAULT_FUTURE);
    if (config->isa_max != QKV_ISA_NONE && !qkv_isa_built(config->isa_max))
        return qkv_fail(QKV_ARG_ISA, QKV_FAULT_RANGE);
    if (config->last_cache < 0)
        return qkv_fail(QKV_ARG_CONFIG, QKV_FAULT_RANGE);
    return QKV_OK;
}

qkv_status qkv_context_init(qkv_context *context, const qkv_context_config *config) {
    qkv_context_config taken;
    qkv_status status = QKV_OK;

    if (context == NULL)
        return qkv_fail(QKV_ARG_CONTEXT, QKV_FAULT_NULL);
    if ((uintptr_t)context % _Alignof(qkv_context) != 0)
        return qkv_fail(QKV_ARG_CONTEXT, QKV_FAULT_MISALIGNED);
    qkv_context_config_init(&taken);
    if (config != NULL) {
        status = qkv_take_struct(&taken, sizeof taken, config, sizeof taken, QKV_ARG_CONFIG);
        if (status == QKV_OK)
            status = check_config(&taken);
    }
    if (status != QKV_OK)
        return status;
    struct qkv_context_state *state = (struct qkv_context_state *)context;
    *context = (qkv_context){0};
    qkv_context_bind(state, qkv_cpu_usable() & ~taken.disabled, taken.isa_max);
    qkv_context_tell(state, &qkv_startup()->cpu);
    if (taken.last_cache)
        state->table.last_cache = taken.last_cache;
    return QKV_OK;
}

const struct qkv_context_state *qkv_context_get(const qkv_context *context) {
    const struct qkv_context_state *state;

    if (context == NULL)
        context = qkv_default_context();
    else if ((uintptr_t)context % _Alignof(qkv_context) != 0)
        return NULL;
    state = (const struct qkv_context_state *)context;
    return state->magic == QKV_CONTEXT_MAGIC ? state : NULL;
}

qkv_isa qkv_context_isa(const qkv_context *context) {
    const struct qkv_context_state *state = qkv_context_get(context);
    return state != NULL ? (qkv_isa)state->isa : QKV_ISA_NONE;
}

static const char *table_variant(const struct qkv_table *table, int stage) {
    switch (stage) {
    case QKV_STAGE_PROJECT:
        return table->project->variant;
    case QKV_STAGE_SCORES:
        return table->scores->variant;
    case QKV_STAGE_SOFTMAX:
        return table->softmax->variant;
    case QKV_STAGE_MIX:
        return table->mix->variant;
    case QKV_STAGE_ATTENTION:
        return table->attention->variant;
    case QKV_STAGE_PROJECT_BACKWARD:
        return table->project_backward->variant;
    case QKV_STAGE_SCORES_BACKWARD:
        return table->scores_backward->variant;
    case QKV_STAGE_SOFTMAX_BACKWARD:
        return table->softmax_backward->variant;
    case QKV_STAGE_MIX_BACKWARD:
        return table->mix_backward->variant;
    case QKV_STAGE_ATTENTION_BACKWARD:
        return table->attention_backward->variant;
    case QKV_STAGE_LOSS:
        return table->loss->variant;
    case QKV_STAGE_DESCENT:
        return table->descent->variant;
    case QKV_STAGE_APPEND:
        return table->cache->variant;
    case QKV_STAGE_ROTATE:
        return table->rotate->variant;
    case QKV_STAGE_DECODE:
        return table->decode->variant;
    case QKV_STAGE_MERGE:
        return table->merge->variant;
    default:
        return NULL;
    }
}

const char *qkv_context_variant(const qkv_context *context, int stage) {
    const struct qkv_context_state *state = qkv_context_get(context);
    return state != NULL ? table_variant(&state->table, stage) : NULL;
}
