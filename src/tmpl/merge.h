/* SPDX-License-Identifier: Apache-2.0 */
static void join_row(float *out, float *lse, const float *x, float x_lse, ptrdiff_t n) {
    (void)out, (void)lse, (void)x, (void)x_lse, (void)n;
}
