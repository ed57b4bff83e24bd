/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plan of the projection's gradients holds, and how its workspace is divided.
 *
 * The tokens of the whole batch count as one run of rows. Phase 0 takes them in groups of a
 * stretch: rows that do not stand at equal distances are copied so that they do, the matrix that
 * will stand on the left of dW (X, or the gradients if weights are stored [out, in]) is turned, and
 * the biases' stretches are summed. A part of phase 1 is a strip of columns of dX or of a matrix's
 * gradient by a block of its rows, or the gradient of a bias.
 */
#ifndef QKV_CORE_PROJECT_BACKWARD_H
#define QKV_CORE_PROJECT_BACKWARD_H

#include "project.h"

enum {
    /* Rows of a part, at most: what is packed of the right side serves so many. Not part of the
     * law. */
    QKV_GRADIENT_ROWS = 8 * QKV_PROJECT_TOKENS,
};

/* A tensor's rows as phase 1 reads them: copied and turned. Offsets in shared memory. */
struct qkv_rows_layout {
    size_t
        copied; /* [rows][width]; of no size if the tensor's rows are always at equal distances */
    size_t turned; /* [width][turned_ld] */
    size_t sums;   /* [groups][width] */
};

struct __attribute__((may_alias)) qkv_project_backward_state {
    uint64_t magic;
    const struct qkv_table *table;
    struct qkv_project_state shape;
    int64_t rows, groups; /* batch * tokens, and the stretches that they are */
    int64_t turned_ld;
    struct qkv_rows_layout x, dy[QKV_WHICH_COUNT];
    size_t packed, sum; /* offsets in a worker's memory */
    int accumulate;
};

#define QKV_PROJECT_BACKWARD_MAGIC 0x6b636162766b71ULL /* "qkvback" */

_Static_assert(sizeof(struct qkv_project_backward_state) <= sizeof(((qkv_plan *)0)->state),
               "state fits");

/* A call's tensors. */
struct qkv_gradient_call {
    const struct qkv_project_backward_state *state;
    qkv_project_tensors tensors;
    qkv_project_gradients gradients;
};

/* The tensors of one matrix of the call: itself, and the gradients of its output (an input), of
 * the matrix and of its bias. */
struct qkv_matrix_gradients {
    const qkv_tensor *w, *dy, *dw, *db;
};

struct qkv_matrix_gradients qkv_matrix_gradients_of(const struct qkv_gradient_call *call,
                                                    int which);

/* Is any matrix's gradient wanted? */
int qkv_wants_weights(const struct qkv_gradient_call *call);

/* What is read row by row, at equal distances. */
struct qkv_flat {
    float *data;
    int64_t ld;
};

/* X's rows, and those of a gradient of Q, K or V: the tensor's own or their copies. */
struct qkv_flat qkv_flat_x(const struct qkv_gradient_call *call, void *shared);
struct qkv_flat qkv_flat_dy(const struct qkv_gradient_call *call, int which, void *shared);

/* What else phase 0 left of a tensor. */
float *qkv_turned_of(const struct qkv_rows_layout *layout, void *shared);
float *qkv_sums_of(const struct qkv_rows_layout *layout, void *shared);

/* One part of phase 0. */
void qkv_gradient_prepare(const struct qkv_gradient_call *call, void *shared, int64_t group);

/* Parts of phase 1. */
int64_t qkv_project_backward_parts(const struct qkv_project_backward_state *s);

/* Runs checked parts. */
void qkv_project_backward_do(const struct qkv_gradient_call *call, const qkv_workspace *workspace,
                             int32_t phase, int64_t begin, int64_t end);

#endif
