/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of the projection: a part multiplies a block of rows by a strip of columns of one
 * matrix. A block's rows are tokens of one batch entry, or all those of some entries that have few,
 * one entry after the other. Sums that are not whole stand in its worker's memory; the kernel
 * writes the whole ones to the user where a head is made of whole panels and rows stand at equal
 * distances, else they are stored row by row from there. Which part comes after which, and how many
 * are taken together, is what caches make of it (project.h).
 */
#include "project.h"

#include "problem.h"

struct qkv_matrix_tensors qkv_matrix_tensors_of(const qkv_project_tensors *t, int which) {
    const struct qkv_matrix_tensors of[QKV_WHICH_COUNT] = {
        [QKV_WHICH_Q] = {&t->wq, &t->bq, &t->q},
        [QKV_WHICH_K] = {&t->wk, &t->bk, &t->k},
        [QKV_WHICH_V] = {&t->wv, &t->bv, &t->v},
    };
    return of[which];
}

static int64_t strips_of(const struct qkv_matrix *m) {
    return qkv_round_up(m->width, QKV_PROJECT_COLUMNS) / QKV_PROJECT_COLUMNS;
}

int64_t qkv_project_pack_parts(const struct qkv_matrix *m) {
    return strips_of(m);
}

int64_t qkv_project_parts(const struct qkv_project_state *s, const struct qkv_matrix *m) {
    return s->row_blocks * strips_of(m);
}

/* What a part works on, or some parts together: tokens by strips, and where the rows begin. */
struct piece {
    const struct qkv_matrix *m;
    struct qkv_columns plain; /* the columns, and where they are packed, unless w has them */
    float *packed;
    const float *x, *w, *bias; /* w: the strips' panels; bias: of the first column, or NULL */
    float *out, *sum;          /* sum: a dense block for each strip */
    int64_t x_ld, tokens, column, columns;
    int64_t share; /* of the tokens: so many at a time */
    int64_t head_step, row_step;
    int64_t entry_rows, entry_step; /* so many rows on, out goes on elsewhere */
    const float *next;              /* the panels of the part that follows */
};

/* A panel goes from the registers to the user if it lies in one head, row below row. */
static int ends_in_panels(const struct piece *p) {
    return p->m->dim % QKV_PANEL == 0 && p->tokens <= p->entry_rows;
}

static float *element(const struct piece *p, int64_t column) {
    return p->out + column / p->m->dim * p->head_step + column % p->m->dim;
}

/* The strip that begins c columns on. */
static struct piece strip_of(const struct piece *p, int64_t c) {
    struct piece strip = *p;
    strip.sum += c * p->tokens;
    strip.column += c;
    strip.columns = qkv_min(p->columns - c, QKV_PROJECT_COLUMNS);
    if (p->bias)
        strip.bias += c;
    return strip;
}

/* Some inputs of a strip, and what is read after them. */
struct panels {
    const float *w;
    int64_t step; /* from panel to panel */
    const float *ahead;
    int64_t ahead_k;
};

/* Inputs [k, k + n) of a strip. */
static void multiply_strip(const struct qkv_project_state *s, const struct piece *p,
                           const struct panels *panels, int64_t k, int64_t n) {
    const struct qkv_project_kernels *kernels = s->table->project;
    const int64_t padded = qkv_round_up(p->columns, QKV_PANEL);
    struct qkv_multiply g = {
        .w = panels->w,
        .x_ld = p->x_ld,
        .w_panel = panels->step,
        .sum_ld = padded,
        .k = n,
        .panels = (int)(padded / QKV_PANEL),
        .add = k > 0,
        .ends = k + n == s->d_model && ends_in_panels(p),
        .bias = p->bias,
        .out_ld = p->row_step,
        .ahead = panels->ahead,
        .ahead_k = panels->ahead_k,
        .follows = s->table->follows,
    };
    for (int64_t r = 0; r < p->tokens; r += p->share) {
        g.x = p->x + r * p->x_ld + k;
        g.sum = p->sum + r * padded;
        g.tokens = qkv_min(p->tokens - r, p->share);
        for (int v = 0; v < g.panels && g.ends; v++)
            g.out[v] = element(p, p->column + v * QKV_PANEL) + r * p->row_step;
        (s->lanes ? kernels->multiply_lanes : kernels->multiply)(&g);
    }
}

/* How many inputs to take at a time, at most. */
static int64_t depth_of(const struct qkv_project_state *s, int64_t tokens) {
    if (s->plain && s->together > 1)
        return QKV_STRETCH;
    if (s->plain)
        return tokens < QKV_PROJECT_TOKENS / 2 ? QKV_PLAIN_DEPTH : QKV_PROJECT_DEPTH;
    if (s->lanes)
        return s->table->project->window;
    return tokens <= s->table->project->few ? s->d_model
           : s->wide                        ? QKV_PROJECT_WIDE_DEPTH
                                            : QKV_PROJECT_DEPTH;
}

/* How many of the inputs that are left come next. */
static int64_t inputs_of(const struct qkv_project_state *s, int64_t left, int64_t depth) {
    const int evenly = s->plain || s->lanes;
    return qkv_min(left, evenly ? qkv_even_share(left, depth, QKV_STRETCH) : depth);
}

/* Inputs [k, k + n) of the strip that begins c columns on, which is packed. */
static struct panels panels_of(const struct qkv_project_state *s, const struct piece *p, int64_t c,
                               int64_t k, int64_t n, int64_t depth) {
    const int64_t next = c + QKV_PROJECT_COLUMNS, step = s->d_model * QKV_PANEL;
    const float *w = p->w + c * s->d_model + k * QKV_PANEL;
    if (next < p->columns)
        return (struct panels){w, step, w + QKV_PROJECT_COLUMNS * s->d_model, n};
    if (k + n < s->d_model)
        return (struct panels){w, step, p->w + (k + n) * QKV_PANEL,
                               inputs_of(s, s->d_model - k - n, depth)};
    return (struct panels){w, step, p->next, inputs_of(s, s->d_model, depth)};
}

/* The same of a strip whose n inputs were packed here. */
static struct panels panels_here(const struct piece *p, int64_t c, int64_t n) {
    const float *w = p->packed + c * n;
    return (struct panels){w, n * QKV_PANEL, w, n};
}

static void multiply(const struct qkv_project_state *s, const struct piece *p) {
    const int64_t depth = depth_of(s, p->tokens);
    for (int64_t k = 0, n; k < s->d_model; k += n) {
        n = inputs_of(s, s->d_model - k, depth);
        if (s->plain)
            qkv_pack_columns(&s->table->project->pack, p->packed, &p->plain, k, n, p->columns);
        for (int64_t c = 0; c < p->columns; c += QKV_PROJECT_COLUMNS) {
            const struct piece strip = strip_of(p, c);
            const struct panels panels =
                s->plain ? panels_here(p, c, n) : panels_of(s, p, c, k, n, depth);
            multiply_strip(s, &strip, &panels, k, n);
        }
    }
}

/* Rows of a strip's whole sums, to one head after the other. */
static void store_strip(const struct qkv_project_kernels *kernels, const struct piece *p) {
    const int64_t ld = qkv_round_up(p->columns, QKV_PANEL);
    for (int64_t i = 0; i < p->tokens; i++) {
        const int64_t row = i / p->entry_rows * p->entry_step + i % p->entry_rows * p->row_step;
        for (int64_t c = 0, n; c < p->columns; c += n) {
            const int64_t column = p->column + c;
            n = qkv_min(p->columns - c, p->m->dim - column % p->m->dim);
            kernels->store(element(p, column) + row, p->sum + i * ld + c,
                           p->bias ? p->bias + c : NULL, n);
        }
    }
}

static void store(const struct qkv_project_state *s, const struct piece *p) {
    for (int64_t c = 0; c < p->columns; c += QKV_PROJECT_COLUMNS) {
        const struct piece strip = strip_of(p, c);
        store_strip(s->table->project, &strip);
    }
}

/* Where a part lies in its matrix, in blocks of rows and in strips. */
struct place {
    int64_t block, strip;
};

static struct place place_of(const struct qkv_project_state *s, const struct qkv_matrix *m,
                             int64_t index) {
    const int64_t strips = strips_of(m);
    return s->wide ? (struct place){index / strips, index % strips}
                   : (struct place){index % s->row_blocks, index / s->row_blocks};
}

/* How many of `count` parts from one on are taken together. */
static int64_t together(const struct qkv_project_state *s, const struct qkv_matrix *m,
                        int64_t index, int64_t count) {
    if (s->together == 1)
        return 1;
    return qkv_min(qkv_min(count, s->together), strips_of(m) - place_of(s, m, index).strip);
}

/* The column at which the part after these begins; after the last of all, the first. */
static int64_t column_after(const struct qkv_project_state *s, const struct qkv_matrix *m,
                            int64_t last) {
    const int64_t after = last + 1 < qkv_project_parts(s, m) ? last + 1 : 0;
    return place_of(s, m, after).strip * QKV_PROJECT_COLUMNS;
}

/* A block of rows: `rows` from `row` on of each of some entries. */
struct block {
    int64_t entry, entries, row, rows;
};

static struct block block_of(const struct qkv_project_state *s, int64_t index) {
    const int64_t each = qkv_round_up(s->tokens, s->block) / s->block;
    const int64_t entry = index / each * s->entries, row = index % each * s->block;
    return (struct block){entry, qkv_min(s->entries, s->batch - entry), row,
                          qkv_min(s->tokens - row, s->block)};
}

/* From row to row, within an entry and, if they go on at the same distance, from one to the next.
 */
static int64_t row_step(const struct qkv_project_state *s, const qkv_tensor *t) {
    return t->stride[s->tokens == 1 ? 0 : 2];
}

static int goes_on(const struct qkv_project_state *s, const qkv_tensor *t) {
    return t->stride[0] == s->tokens * row_step(s, t);
}

static int64_t first_row(const struct qkv_project_state *s, const qkv_tensor *t,
                         const struct block *b) {
    return b->entry * t->stride[0] + b->row * row_step(s, t);
}

/* A block in one piece, if its entries' inputs follow each other, else entry by entry. */
static void multiply_block(const struct qkv_project_state *s, const struct block *b,
                           const qkv_tensor *x, const struct piece *block) {
    const int64_t pieces = goes_on(s, x) ? 1 : b->entries;
    for (int64_t i = 0; i < pieces; i++) {
        struct piece p = *block;
        p.x += i * x->stride[0];
        p.out += i * p.entry_step;
        p.tokens = b->entries / pieces * b->rows;
        p.share = qkv_even_share(p.tokens, QKV_PROJECT_TOKENS, s->table->project->mr);
        if (i + 1 < pieces)
            p.next = p.w;
        multiply(s, &p);
        if (!ends_in_panels(&p))
            store(s, &p);
    }
}

/* The panels that the caller packed, or phase 0. */
static const float *packed_weights(const struct qkv_project_state *s, const struct qkv_matrix *m,
                                   const qkv_tensor *w, const qkv_workspace *workspace) {
    const char *from = s->packs ? (const char *)workspace->shared + m->packed
                                : (const char *)w->data + sizeof(struct qkv_packed_header);
    return (const float *)from;
}

static void project_parts(const struct qkv_project_state *s, const qkv_project_tensors *tensors,
                          const qkv_workspace *workspace, int which, int64_t index, int64_t count) {
    const struct qkv_matrix *m = s->matrix + which;
    const struct qkv_matrix_tensors t = qkv_matrix_tensors_of(tensors, which);
    const struct place place = place_of(s, m, index);
    const struct block b = block_of(s, place.block);
    const int64_t column = place.strip * QKV_PROJECT_COLUMNS;
    const float *bias = t.bias->data;
    struct piece p = {
        .m = m,
        .plain = qkv_columns_of(t.w, s->layout, column),
        .packed = (float *)((char *)workspace->worker + s->packed),
        .x = (const float *)tensors->x.data + first_row(s, &tensors->x, &b),
        .bias = bias ? bias + column : NULL,
        .out = (float *)t.out->data + first_row(s, t.out, &b),
        .sum = workspace->worker,
        .x_ld = row_step(s, &tensors->x),
        .column = column,
        .columns = qkv_min(m->width - column, count * QKV_PROJECT_COLUMNS),
        .head_step = t.out->stride[1],
        .row_step = row_step(s, t.out),
        .entry_rows = goes_on(s, t.out) ? b.entries * b.rows : b.rows,
        .entry_step = t.out->stride[0],
    };
    if (!s->plain) {
        const float *w = packed_weights(s, m, t.w, workspace);
        p.w = w + column * s->d_model;
        p.next = w + column_after(s, m, index + count - 1) * s->d_model;
    }
    multiply_block(s, &b, &tensors->x, &p);
}

/* Parts of a matrix in a phase. */
static int64_t parts_of(const struct qkv_project_state *s, int packing, int which) {
    const struct qkv_matrix *m = s->matrix + which;
    return packing ? qkv_project_pack_parts(m) : qkv_project_parts(s, m);
}

/* The matrix that part *index of a phase belongs to; *index becomes the part within it. */
static int matrix_of(const struct qkv_project_state *s, int packing, int64_t *index) {
    int which = 0;
    for (int64_t parts; *index >= (parts = parts_of(s, packing, which)); which++)
        *index -= parts;
    return which;
}

static void pack_part(const struct qkv_project_state *s, const qkv_project_tensors *tensors,
                      const qkv_workspace *workspace, int which, int64_t index) {
    const struct qkv_matrix *m = s->matrix + which;
    qkv_project_pack_strip(s, m, qkv_matrix_tensors_of(tensors, which).w,
                           (float *)((char *)workspace->shared + m->packed), index);
}

void qkv_project_do(const struct qkv_project_state *s, const qkv_project_tensors *tensors,
                    const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end) {
    const int packing = s->packs && phase == 0;
    for (int64_t i = begin, count = 1; i < end; i += count) {
        int64_t index = i;
        const int which = matrix_of(s, packing, &index);
        if (packing) {
            pack_part(s, tensors, workspace, which, index);
        } else {
            count = together(s, s->matrix + which, index, end - i);
            project_parts(s, tensors, workspace, which, index, count);
        }
    }
}
