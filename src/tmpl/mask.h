/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a row's masks keep, a vector of columns at a time. Lanes are compared by their column
 * number as a float: a block has QKV_KEY_BLOCK columns at most, so every number is exact.
 */
#ifndef QKV_TMPL_MASK_H
#define QKV_TMPL_MASK_H

#include <math.h>

static inline vf column_numbers(int c) {
    return vf_add(vf_set1((float)c), vf_iota());
}

/* x where lo <= column < hi, no elsewhere. */
static inline vf keep_columns(vf x, vf no, int c, int lo, int hi) {
    if (c >= lo && c + VF_LANES <= hi)
        return x;
    vf column = column_numbers(c);
    x = vf_select(vm_lt(column, vf_set1((float)lo)), no, x);
    return vf_select(vm_lt(column, vf_set1((float)hi)), x, no);
}

/* VF_LANES elements of a row that ends before column `end`; a step of 0 broadcasts the first. */
static inline vf load_columns(const float *row, int step, int c, int end) {
    if (!step)
        return vf_set1(*row);
    if (c + VF_LANES <= end)
        return vf_load(row + c);
    return vf_load_part(row + c, c < end ? end - c : 0);
}

static inline vm load_bool_columns(const uint8_t *row, int step, int c, int end) {
    if (!step)
        return vm_eq(vf_set1(*row ? 0.0f : 1.0f), vf_set1(0.0f));
    if (c + VF_LANES <= end)
        return vm_load_bool(row + c);
    return vm_load_bool_part(row + c, c < end ? end - c : 0);
}

/* Does a bias mask? -inf does, and the most negative floats, which stand for it in many programs
 * and would overflow in units of log2(e). */
static inline vm bias_masks(vf bias) {
    return vm_lt(bias, vf_set1(-0x1p127f));
}

/* x where the row's intervals, its boolean mask and a bias that masks keep the column: what softmax
 * and mix, which do not add the bias, take from it. The row's bias and mask end at `end`. */
static inline vf keep_unmasked(vf x, vf no, const struct qkv_score_row *row,
                               const struct qkv_score_rule *rule, int c, int end) {
    if (row->bias) {
        vf bias = load_columns(row->bias, rule->bias_step, c, end);
        x = vf_select(bias_masks(bias), no, x);
    }
    if (row->mask)
        x = vf_select(load_bool_columns(row->mask, rule->mask_step, c, end), x, no);
    return keep_columns(x, no, c, row->lo, row->hi);
}

#endif
