/* SPDX-License-Identifier: Apache-2.0 */
/* The tiles of a row block over one key block (tiles.h). */
#include "tiles.h"

#include <string.h>

/* The first rows of an even block, which all have its columns. */
static void lay_even(struct qkv_tiles *t, const struct qkv_part *part,
                     const struct qkv_key_block *block, int rows) {
    struct qkv_score_row row = {
        .s = part->scores,
        .from = t->from,
        .to = t->to,
        .lo = block->lo,
        .hi = block->hi,
        .first = block->lo,
        .end = block->hi,
    };
    if (t->laid >= rows && t->row->lo == row.lo && t->row->hi == row.hi)
        return;
    for (int r = 0; r < rows; r++, row.s += QKV_SCORES_LD)
        t->row[r] = row;
    t->laid = rows;
}

void qkv_lay_next_tiles(struct qkv_tiles *t, const struct qkv_part *part,
                        const struct qkv_key_block *block, int mr, qkv_sees_fn *sees) {
    t->from = block->lo / QKV_PANEL * QKV_PANEL;
    t->to = (block->hi + QKV_PANEL - 1) / QKV_PANEL * QKV_PANEL;
    t->any = t->even = qkv_part_is_even(part, block);
    t->whole =
        t->even && !part->plan->problem.rule.modified && t->from == block->lo && t->to == block->hi;
    if (t->even) {
        lay_even(t, part, block, t->whole ? 1 : part->rows);
        return;
    }
    t->laid = 0;
    for (int r = 0; r < part->rows; r += mr) {
        int rows = qkv_tile_rows(part, r, mr);
        int live = qkv_part_score_rows(part, block, r, rows, sees, t->row + r);
        if (!live)
            memset(t->row + r, 0, (size_t)rows * sizeof(t->row[0]));
        else if (!t->any)
            qkv_prefetch_bias(t->row + r, rows);
        t->any |= live;
    }
}

void qkv_lay_all_rows(struct qkv_tiles *t, const struct qkv_part *part,
                      const struct qkv_key_block *block) {
    if (t->whole)
        lay_even(t, part, block, part->rows);
}

void qkv_lay_tiles(struct qkv_tiles *t, const struct qkv_part *part,
                   const struct qkv_key_block *block, int mr, qkv_sees_fn *sees) {
    t->laid = 0;
    qkv_lay_next_tiles(t, part, block, mr, sees);
    qkv_lay_all_rows(t, part, block);
}
