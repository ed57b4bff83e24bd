/* SPDX-License-Identifier: Apache-2.0 */
/* The tiles of a row block over one key block (tiles.h). */
#include "tiles.h"

#include <string.h>

void qkv_lay_tiles(struct qkv_tiles *t, const struct qkv_part *part,
                   const struct qkv_key_block *block, int mr, qkv_sees_fn *sees) {
    const struct qkv_score_row *row = t->row;
    t->any = t->even = qkv_part_even_rows(part, block, t->row);
    t->whole =
        t->any && !part->plan->problem.rule.modified && row->from == row->lo && row->to == row->hi;
    t->from = block->lo / QKV_PANEL * QKV_PANEL;
    t->to = (block->hi + QKV_PANEL - 1) / QKV_PANEL * QKV_PANEL;
    if (t->any)
        return;
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
