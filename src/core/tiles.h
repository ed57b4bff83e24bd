/* SPDX-License-Identifier: Apache-2.0 */
/* The tiles of a row block over one key block: which columns the products of the fused stage, and
 * of its gradients, compute. */
#ifndef QKV_CORE_TILES_H
#define QKV_CORE_TILES_H

#include "block.h"

/* The score rows of a whole row block over one key block. The rows of a tile have the same columns;
 * those of a tile that sees nothing have none. */
struct qkv_tiles {
    struct qkv_score_row row[QKV_ROWS];
    int laid;     /* so many rows still stand as the last even block laid them; else 0 */
    int from, to; /* columns beyond these no row has; multiples of PANEL */
    int any;      /* some tile sees something */
    int even;  /* all rows have the same columns, and nothing is masked or added but outside them */
    int whole; /* all rows have the same columns, and no score is masked or changed */
};

static inline int qkv_tile_rows(const struct qkv_part *part, int r, int mr) {
    return part->rows - r < mr ? part->rows - r : mr;
}

void qkv_lay_tiles(struct qkv_tiles *t, const struct qkv_part *part,
                   const struct qkv_key_block *block, int mr, qkv_sees_fn *sees);

/* The same where t was laid before, for the same worker (or has laid = 0): rows that are as they
 * were, as an even block's mostly are, are left alone. Row 0 stands for all rows of a whole block,
 * until those who need each of them ask for them. */
void qkv_lay_next_tiles(struct qkv_tiles *t, const struct qkv_part *part,
                        const struct qkv_key_block *block, int mr, qkv_sees_fn *sees);
void qkv_lay_all_rows(struct qkv_tiles *t, const struct qkv_part *part,
                      const struct qkv_key_block *block);

/* Rows from some row on, whole tiles, that have the same columns [from, to), or none (from >= to).
 */
struct qkv_band {
    int rows, from, to;
};

/* The band that begins at row r, as far as it lies in the columns [first, end): all rows of an even
 * block. */
static inline struct qkv_band qkv_band_of(const struct qkv_tiles *t, const struct qkv_part *part,
                                          int mr, int r, int first, int end) {
    struct qkv_band band = {0};
    if (t->even)
        mr = part->rows;
    for (int i = r; i < part->rows; i += mr) {
        const int from = t->row[i].from > first ? t->row[i].from : first;
        const int to = t->row[i].to < end ? t->row[i].to : end;
        if (i > r && (from != band.from || to != band.to))
            break;
        band = (struct qkv_band){i - r + qkv_tile_rows(part, i, mr), from, to};
    }
    return band;
}

/* The band that begins at row r, for a product that sums over the keys of a block into n columns: a
 * key that no row of a tile sees would be a step for nothing. Columns that fill no tile's width nr
 * are taken by taller tiles, whose bands are better whole. */
static inline struct qkv_band qkv_key_band_of(const struct qkv_tiles *t,
                                              const struct qkv_part *part, int mr, int r,
                                              const struct qkv_key_block *block, int nr,
                                              int64_t n) {
    if (t->even || n % nr)
        return qkv_band_of(t, part, mr, r, block->lo, block->hi);
    struct qkv_band band = {qkv_tile_rows(part, r, mr), t->row[r].first, t->row[r].end};
    for (int i = r + mr; i < part->rows; i += mr) {
        if (t->row[i].first != band.from || t->row[i].end != band.to)
            break;
        band.rows += qkv_tile_rows(part, i, mr);
    }
    return band;
}

#endif
