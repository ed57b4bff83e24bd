/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of the cache and of decode broken on purpose, as broken.c breaks those of the other
 * stages. Most mutants are of one stored type. */
#include "broken_decode.h"

#include "context.h"

/* The room's own kernels, and the copies that stand in the context. */
static struct qkv_table own;
static struct qkv_cache_kernels cache;
static struct qkv_decode_kernels decode;

/* ---- The products with what is stored ---- */

static void keys_drop_a_term(const struct qkv_key_product *p) {
    struct qkv_key_product less = *p;
    less.k -= less.k > 1;
    own.decode->keys[QKV_STORED_BF16](&less);
}

static void keys_forget_a_scale(const struct qkv_key_product *p) {
    struct qkv_key_product plain = *p;
    plain.scale = NULL;
    own.decode->keys[QKV_STORED_I8](&plain);
}

/* Of several rows the last one gets the scores of the one before. */
static void keys_mix_up_rows(const struct qkv_key_product *p) {
    own.decode->keys[QKV_STORED_F32](p);
    for (int c = 0; p->rows > 1 && c < p->panels * QKV_PANEL; c++)
        p->s[(p->rows - 1) * p->lds + c] = p->s[(p->rows - 2) * p->lds + c];
}

static void values_drop_a_token(const struct qkv_value_product *p) {
    struct qkv_value_product less = *p;
    less.to -= less.to - less.from > 1;
    own.decode->values[QKV_STORED_F16](&less);
}

static void values_forget_what_was(const struct qkv_value_product *p) {
    struct qkv_value_product alone = *p;
    alone.factor = NULL;
    own.decode->values[QKV_STORED_BF16](&alone);
}

static void values_forget_to_rescale(const struct qkv_value_product *p) {
    float ones[QKV_FEW];
    struct qkv_value_product as_it_is = *p;
    for (int r = 0; r < QKV_FEW; r++)
        ones[r] = 1;
    if (p->factor)
        as_it_is.factor = ones;
    own.decode->values[QKV_STORED_I8](&as_it_is);
}

static void weights_keep_a_panel_unscaled(float *w, ptrdiff_t ldw, const float *const *scale,
                                          int rows, int from, int to, int marked) {
    own.decode->scale(w, ldw, scale, rows, from + QKV_PANEL < to ? from + QKV_PANEL : from, to,
                      marked);
}

static void weights_ignore_marks(float *w, ptrdiff_t ldw, const float *const *scale, int rows,
                                 int from, int to, int marked) {
    (void)marked;
    own.decode->scale(w, ldw, scale, rows, from, to, 0);
}

/* ---- In and out ---- */

static void unpacking_drops_a_step(float *dst, const void *panel, ptrdiff_t k) {
    own.cache->unpack_keys[QKV_STORED_F16](dst, panel, k);
    for (int c = 0; c < QKV_PANEL; c++)
        dst[(k - 1) * QKV_PANEL + c] = 0;
}

static void unpacking_repeats_a_token(float *dst, const void *panel, int from, int to,
                                      ptrdiff_t n) {
    own.cache->unpack_values[QKV_STORED_I8](dst, panel, from, to, n);
    for (ptrdiff_t c = 0; to - from > 1 && c < n; c++)
        dst[(to - 1) * n + c] = dst[(to - 2) * n + c];
}

static void append_loses_bits(void *panel, float *scale, int column, const float *rows,
                              ptrdiff_t ld, int count, ptrdiff_t k) {
    float *to = panel;
    own.cache->append_keys[QKV_STORED_F32](panel, scale, column, rows, ld, count, k);
    to[column] = (to[column] + 256 * to[column]) - 256 * to[column];
}

static int append_takes_all_for_finite(void *panel, float *scale, int row, const float *rows,
                                       ptrdiff_t ld, int count, ptrdiff_t v_dim) {
    own.cache->append_values[QKV_STORED_F32](panel, scale, row, rows, ld, count, v_dim);
    return 0;
}

/* ---- The list ---- */

#define MUTANT(name, assignment)    \
    static void make_##name(void) { \
        assignment;                 \
    }
#define MUTANTS(DO)                                                                               \
    DO(keys_drop_a_term, decode.keys[QKV_STORED_BF16] = keys_drop_a_term)                         \
    DO(keys_forget_a_scale, decode.keys[QKV_STORED_I8] = keys_forget_a_scale)                     \
    DO(keys_mix_up_rows, decode.keys[QKV_STORED_F32] = keys_mix_up_rows)                          \
    DO(values_drop_a_token, decode.values[QKV_STORED_F16] = values_drop_a_token)                  \
    DO(values_forget_what_was, decode.values[QKV_STORED_BF16] = values_forget_what_was)           \
    DO(values_forget_to_rescale, decode.values[QKV_STORED_I8] = values_forget_to_rescale)         \
    DO(weights_keep_a_panel_unscaled, decode.scale = weights_keep_a_panel_unscaled)               \
    DO(weights_ignore_marks, decode.scale = weights_ignore_marks)                                 \
    DO(unpacking_drops_a_step, cache.unpack_keys[QKV_STORED_F16] = unpacking_drops_a_step)        \
    DO(unpacking_repeats_a_token, cache.unpack_values[QKV_STORED_I8] = unpacking_repeats_a_token) \
    DO(append_loses_bits, cache.append_keys[QKV_STORED_F32] = append_loses_bits)                  \
    DO(append_takes_all_for_finite,                                                               \
       cache.append_values[QKV_STORED_F32] = append_takes_all_for_finite)

MUTANTS(MUTANT)

#define ENTRY(name, assignment) {"decode_" #name, make_##name},
static const struct {
    const char *name;
    void (*make)(void);
} mutants[] = {MUTANTS(ENTRY)};

int broken_decode_count(void) {
    return sizeof mutants / sizeof *mutants;
}

const char *broken_decode_name(int mutant) {
    return mutants[mutant].name;
}

int broken_decode_make(qkv_context *context, int mutant) {
    struct qkv_context_state *state = (struct qkv_context_state *)context->state;
    own = state->table;
    cache = *own.cache;
    decode = *own.decode;
    state->table.cache = &cache;
    state->table.decode = &decode;
    mutants[mutant].make();
    return QKV_STAGE_DECODE;
}
