/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of the projection: a part multiplies some tokens by a strip of columns of one
 * matrix. Sums that are not whole stand in its worker's memory; the kernel writes the whole ones
 * to the user where a head is made of whole panels, else they are stored row by row from there.
 * Which part comes after which, and how many are taken together, is what caches make of it
 * (project.h).
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

int64_t qkv_project_pack_parts(const struct qkv_matrix *m) {
    return qkv_round_up(m->panels, QKV_PACK_PANELS) / QKV_PACK_PANELS;
}

static int64_t strips_of(const struct qkv_matrix *m) {
    return qkv_round_up(m->width, QKV_PROJECT_COLUMNS) / QKV_PROJECT_COLUMNS;
}

int64_t qkv_project_parts(const struct qkv_project_state *s, const struct qkv_matrix *m) {
    return s->row_blocks * strips_of(m);
}

void qkv_project_pack_panels(const struct qkv_project_kernels *kernels, int64_t d_model,
                             const struct qkv_matrix *m, int layout, const qkv_tensor *w,
                             float *packed, int64_t begin, int64_t end) {
    const float *data = w->data;
    const int64_t ld = w->stride[2];
    for (int64_t g = begin; g < end; g++) {
        float *dst = packed + g * d_model * QKV_PANEL;
        int columns = (int)qkv_min(m->width - g * QKV_PANEL, QKV_PANEL);
        if (layout == QKV_W_IN_OUT)
            kernels->pack.rows(dst, data + g * QKV_PANEL, ld, d_model, columns);
        else
            kernels->pack.panel(dst, data + g * QKV_PANEL * ld, ld, 0, columns, d_model);
    }
}

/* What a part works on, or some parts together: tokens by strips, and where the rows begin. */
struct piece {
    const struct qkv_matrix *m;
    const float *x, *w, *bias; /* w: the strips' panels; bias: of the first column, or NULL */
    float *out, *sum;          /* sum: a dense block for each strip */
    int64_t x_ld, tokens, column, columns;
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
static struct piece strip_of(const struct qkv_project_state *s, const struct piece *p, int64_t c) {
    struct piece strip = *p;
    strip.w += c * s->d_model;
    strip.sum += c * p->tokens;
    strip.column += c;
    strip.columns = qkv_min(p->columns - c, QKV_PROJECT_COLUMNS);
    if (p->bias)
        strip.bias += c;
    return strip;
}

/* What is read after some inputs of a strip: so many of some panels. */
struct ahead {
    const float *w;
    int64_t k;
};

/* Inputs [k, k + n) of a strip. */
static void multiply_strip(const struct qkv_project_state *s, const struct piece *p, int64_t k,
                           int64_t n, struct ahead ahead) {
    const int64_t padded = qkv_round_up(p->columns, QKV_PANEL);
    struct qkv_multiply g = {
        .x = p->x + k,
        .w = p->w + k * QKV_PANEL,
        .sum = p->sum,
        .x_ld = p->x_ld,
        .w_panel = s->d_model * QKV_PANEL,
        .sum_ld = padded,
        .tokens = p->tokens,
        .k = n,
        .panels = (int)(padded / QKV_PANEL),
        .add = k > 0,
        .ends = k + n == s->d_model && ends_in_panels(p),
        .bias = p->bias,
        .out_ld = p->row_step,
        .ahead = ahead.w,
        .ahead_k = ahead.k,
        .follows = s->table->follows,
    };
    for (int v = 0; v < g.panels && g.ends; v++)
        g.out[v] = element(p, p->column + v * QKV_PANEL);
    const struct qkv_project_kernels *kernels = s->table->project;
    (s->lanes ? kernels->multiply_lanes : kernels->multiply)(&g);
}

static int64_t depth_of(const struct qkv_project_state *s, int64_t tokens) {
    if (s->lanes)
        return qkv_even_share(s->d_model, QKV_PROJECT_WINDOW, QKV_STRETCH);
    return tokens <= s->table->project->few ? s->d_model
           : s->wide                        ? QKV_PROJECT_WIDE_DEPTH
                                            : QKV_PROJECT_DEPTH;
}

/* What is read after inputs [k, k + n) of the strip that begins c columns on. */
static struct ahead after(const struct qkv_project_state *s, const struct piece *p, int64_t c,
                          int64_t k, int64_t n, int64_t depth) {
    const int64_t next = c + QKV_PROJECT_COLUMNS;
    if (next < p->columns)
        return (struct ahead){p->w + next * s->d_model + k * QKV_PANEL, n};
    if (k + n < s->d_model)
        return (struct ahead){p->w + (k + n) * QKV_PANEL, qkv_min(s->d_model - k - n, depth)};
    return (struct ahead){p->next, qkv_min(s->d_model, depth)};
}

static void multiply(const struct qkv_project_state *s, const struct piece *p) {
    const int64_t depth = depth_of(s, p->tokens);
    for (int64_t k = 0, n; k < s->d_model; k += n) {
        n = qkv_min(s->d_model - k, depth);
        for (int64_t c = 0; c < p->columns; c += QKV_PROJECT_COLUMNS) {
            const struct piece strip = strip_of(s, p, c);
            multiply_strip(s, &strip, k, n, after(s, p, c, k, n, depth));
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
        const struct piece strip = strip_of(s, p, c);
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
    if (!s->wide)
        return 1;
    return qkv_min(qkv_min(count, QKV_PROJECT_TOGETHER),
                   strips_of(m) - place_of(s, m, index).strip);
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
    const int64_t each = qkv_round_up(s->tokens, QKV_PROJECT_TOKENS) / QKV_PROJECT_TOKENS;
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

static const float *first_row(const struct qkv_project_state *s, const qkv_tensor *t,
                              const struct block *b) {
    return (const float *)t->data + b->entry * t->stride[0] + b->row * row_step(s, t);
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
        if (i + 1 < pieces)
            p.next = p.w;
        multiply(s, &p);
        if (!ends_in_panels(&p))
            store(s, &p);
    }
}

static void project_parts(const struct qkv_project_state *s, const qkv_project_tensors *tensors,
                          const qkv_workspace *workspace, int which, int64_t index, int64_t count) {
    const struct qkv_matrix *m = s->matrix + which;
    const struct qkv_matrix_tensors t = qkv_matrix_tensors_of(tensors, which);
    const struct place place = place_of(s, m, index);
    const struct block b = block_of(s, place.block);
    const int64_t column = place.strip * QKV_PROJECT_COLUMNS;
    const float *bias = t.bias->data;
    const float *packed =
        s->packs ? (const float *)((const char *)workspace->shared + m->packed)
                 : (const float *)((const char *)t.w->data + sizeof(struct qkv_packed_header));
    const struct piece p = {
        .m = m,
        .x = first_row(s, &tensors->x, &b),
        .w = packed + column * s->d_model,
        .bias = bias ? bias + column : NULL,
        .out = (float *)first_row(s, t.out, &b),
        .sum = workspace->worker,
        .x_ld = row_step(s, &tensors->x),
        .column = column,
        .columns = qkv_min(m->width - column, count * QKV_PROJECT_COLUMNS),
        .head_step = t.out->stride[1],
        .row_step = row_step(s, t.out),
        .entry_rows = goes_on(s, t.out) ? b.entries * b.rows : b.rows,
        .entry_step = t.out->stride[0],
        .next = packed + column_after(s, m, index + count - 1) * s->d_model,
    };
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
    const int64_t panel = index * QKV_PACK_PANELS;
    qkv_project_pack_panels(s->table->project, s->d_model, m, s->layout,
                            qkv_matrix_tensors_of(tensors, which).w,
                            (float *)((char *)workspace->shared + m->packed), panel,
                            qkv_min(panel + QKV_PACK_PANELS, m->panels));
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
