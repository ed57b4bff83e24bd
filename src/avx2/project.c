/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection in AVX2 (struct qkv_multiply in kernels.h): the tiles of a strip, for many tokens
 * and for few; the walk over them and the rows' way out are tmpl/project.h's, the packing pack.c's.
 * X is broadcast, one element a row and input; W comes in whole vectors. Reads and writes exactly
 * what the sizes say.
 *
 * Many tokens: 6 rows by 16 columns, as in tile.h. Whole tiles are assembly from one row to the
 * next (high_tiles, low_tiles), beside whose steps the next tile's X is asked for, and what comes
 * next of W. What is left over of rows and inputs goes by tiles of its own, which ask for what
 * comes next in equal parts with each stretch.
 *
 * Few tokens: as many chains as cover two FMA ports of latency 4, and as few streams of W as that
 * takes. One or two tokens leave them to the processor's own prefetchers, which follow them but for
 * the ends of pages: of each KiB one line is asked for, 32 KiB ahead. Every line that is asked for
 * holds one of a few buffers until it is there, and would be slower than theirs. Where three or
 * four tokens work on a line, some processors' prefetchers fall behind: all are asked for. Others
 * bring four streams 1.1 times as fast as two: one token takes as many, and asks for all lines, 2
 * KiB ahead, into the first-level cache. From memory, up to 17 tokens ask for what comes next in
 * lanes there (tmpl/project_lanes.h).
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

enum { LANED_ROWS = MR };
#include "tmpl/project_lanes.h"

enum { FEW = 4, GROUPS = 4, VECTORS = 2 * GROUPS, UNROLLED = 16 };

/* When a tile asks for lines: between stretches, for what comes next; where it reads, some way
 * ahead; or at every step, or every second one, for what comes next, in lanes. */
enum { BETWEEN = 0, EVERY = 1, SECOND = 2, AHEAD = 3 };
#define LANED(asks) ((asks) == EVERY || (asks) == SECOND)

static int laned_panels(int rows) {
    return rows > 2 ? 1 : rows > 1 ? 2 : 4;
}

static int few_panels(const struct qkv_multiply *g) {
    static const int panels[2][FEW] = {{4, 2, 1, 1}, {2, 2, 1, 1}};
    return panels[g->follows != 0][g->tokens - 1];
}

/* Of how many lines one is asked for, and how many inputs ahead: of many panels into the
 * first-level cache. */
#define MANY(panels) ((panels) > 2)
#define ASKED(tokens, panels) (MANY(panels) || (tokens) > 2 ? 1 : UNROLLED)
#define FAR(tokens, panels) (MANY(panels) ? 32 : (tokens) > 2 ? 256 : 512)

/* One input. M and G are constants where this is inlined, so that acc lives in registers. */
static inline __attribute__((always_inline)) void
step(__m256 acc[MR][VECTORS], const struct place at, const int M, const int G) {
    __m256 w[VECTORS];
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++)
        w[v] = _mm256_loadu_ps(at.w + v / 2 * at.w_panel + v % 2 * 8);
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        __m256 x = _mm256_broadcast_ss(at.x + r * at.x_ld);
        QKV_UNROLL(8)
        for (int v = 0; v < 2 * G; v++)
            acc[r][v] = _mm256_fmadd_ps(x, w[v], acc[r][v]);
    }
}

/* Asks for the lines that are so many inputs ahead. */
static inline __attribute__((always_inline)) void ask(const struct place at, const int far,
                                                      const int G) {
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++) {
        const void *line = (const void *)line_of(at.w + v * at.w_panel, far);
        if (MANY(G))
            _mm_prefetch(line, _MM_HINT_T0);
        else
            _mm_prefetch(line, _MM_HINT_T1);
    }
}

/* What step i of a turn asks for; ahead: where the turn's part of what comes next begins. */
static inline __attribute__((always_inline)) void look_ahead(const struct place at,
                                                             const struct lanes *ahead, const int i,
                                                             const int M, const int G,
                                                             const int asks) {
    if (LANED(asks))
        ask_lanes(ahead, i, asks, G);
    else if (i % ASKED(M, G) == 0)
        ask(at, FAR(M, G), G);
}

/* The chains of n inputs, from zero. */
static inline __attribute__((always_inline)) void stretch(__m256 acc[MR][VECTORS], struct place at,
                                                          struct lanes ahead, ptrdiff_t n,
                                                          const int M, const int G,
                                                          const int asks) {
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(8)
        for (int v = 0; v < 2 * G; v++)
            acc[r][v] = _mm256_setzero_ps();
    }

    for (; asks != BETWEEN && n >= UNROLLED; n -= UNROLLED) {
        QKV_UNROLL(16)
        for (int i = 0; i < UNROLLED; i++) {
            look_ahead(at, &ahead, i, M, G, asks);
            step(acc, at, M, G);
            at.x++;
            at.w += QKV_PANEL;
        }
        ahead.line += LANED(asks) ? asked(UNROLLED, asks, G) : 0;
    }
    for (; n > 0; n--) {
        step(acc, at, M, G);
        at.x++;
        at.w += QKV_PANEL;
    }
}

/* Joins the stretch to the ones before; whole sums go out. */
static inline __attribute__((always_inline)) void join(__m256 acc[MR][VECTORS],
                                                       const struct qkv_multiply *g,
                                                       const struct tile *t, int add, int ends,
                                                       const int M, const int G) {
    float *sum = g->sum + t->row * g->sum_ld + t->panel * QKV_PANEL;
    if (add) {
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(8)
            for (int v = 0; v < 2 * G; v++)
                acc[r][v] = _mm256_add_ps(_mm256_loadu_ps(sum + r * g->sum_ld + v * 8), acc[r][v]);
        }
    }
    if (!ends) {
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(8)
            for (int v = 0; v < 2 * G; v++)
                _mm256_storeu_ps(sum + r * g->sum_ld + v * 8, acc[r][v]);
        }
        return;
    }
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++) {
        const int panel = t->panel + v / 2;
        float *out = g->out[panel] + t->row * g->out_ld + v % 2 * 8;
        __m256 bias = g->bias ? _mm256_loadu_ps(g->bias + panel * QKV_PANEL + v % 2 * 8)
                              : _mm256_setzero_ps();
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++)
            _mm256_storeu_ps(out + r * g->out_ld, _mm256_add_ps(acc[r][v], bias));
    }
}

static inline __attribute__((always_inline)) void
tile(const struct qkv_multiply *g, const struct tile *t, const int M, const int G, const int asks) {
    struct place at = {g->x + t->row * g->x_ld, g->w + t->panel * g->w_panel, g->x_ld, g->w_panel};
    struct lanes ahead = lanes_of(g, t);
    int add = g->add;
    for (ptrdiff_t left = g->k; left > 0;) {
        __m256 acc[MR][VECTORS];
        const ptrdiff_t n = left < QKV_STRETCH ? left : QKV_STRETCH;
        if (asks == BETWEEN)
            ahead.line = ask_ahead(g, t, ahead.line, n);
        stretch(acc, at, ahead, n, M, G, asks);
        ahead.line += LANED(asks) ? asked(n, asks, G) : 0;
        at.x += n;
        at.w += n * QKV_PANEL;
        left -= n;
        /* What join needs is not computed before the loop: it would push accumulators out. */
        const struct qkv_multiply *later = g;
        __asm__ volatile("" : "+r"(later));
        join(acc, later, t, add, later->ends && left == 0, M, G);
        add = 1;
    }
}

typedef void tile_fn(const struct qkv_multiply *g, const struct tile *t);

#define TILE(name, rows, groups, asks)                                                         \
    static void name##_##rows##x##groups(const struct qkv_multiply *g, const struct tile *t) { \
        tile(g, t, rows, groups, asks);                                                        \
    }
TILE(few, 1, 1, AHEAD)
TILE(few, 1, 2, AHEAD)
TILE(few, 1, 4, AHEAD)
TILE(few, 2, 1, AHEAD)
TILE(few, 2, 2, AHEAD)
TILE(few, 3, 1, AHEAD)
TILE(few, 4, 1, AHEAD)
TILE(every, 1, 4, EVERY)
TILE(every, 2, 2, EVERY)
TILE(every, 3, 1, EVERY)
TILE(every, 4, 1, EVERY)
TILE(every, 5, 1, EVERY)
TILE(every, 6, 1, EVERY)
TILE(second, 3, 1, SECOND)
TILE(second, 4, 1, SECOND)
TILE(second, 5, 1, SECOND)
TILE(second, 6, 1, SECOND)
TILE(many, 1, 1, BETWEEN)
TILE(many, 2, 1, BETWEEN)
TILE(many, 3, 1, BETWEEN)
TILE(many, 4, 1, BETWEEN)
TILE(many, 5, 1, BETWEEN)
TILE(many, 6, 1, BETWEEN)

static void few_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[FEW][GROUPS] = {
        {few_1x1, few_1x2, NULL, few_1x4}, {few_2x1, few_2x2}, {few_3x1}, {few_4x1}};
    tiles[t->rows - 1][t->panels - 1](g, t);
}

/* Where two tiles share the lanes they have three rows or more. */
static void laned_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[2][LANED_ROWS] = {
        {every_1x4, every_2x2, every_3x1, every_4x1, every_5x1, every_6x1},
        {NULL, NULL, second_3x1, second_4x1, second_5x1, second_6x1}};
    tiles[t->of - 1][t->rows - 1](g, t);
}

static void many_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[MR] = {many_1x1, many_2x1, many_3x1, many_4x1, many_5x1, many_6x1};
    tiles[t->rows - 1](g, t);
}

/* ---- Whole tiles ---- */

enum { LEAST = MR };
#include "tmpl/project_stretch.h"

/* clang-format off */
#define TILE_SUM(n) "%%ymm" #n
/* Of tiles of six rows, and of five. */
#define STEP_6(n) TILE_STEP(#n "*64(%[b])", #n "*4")
#define STEP_5(n) TILE_LOW_STEP(#n "*64(%[b])", #n "*4")
#define NEXT_TILE_6 "lea (%[a],%[lda],4),%[x]\nlea (%[x],%[lda],2),%[x]\n"
#define NEXT_TILE_5 "lea (%[a],%[lda],4),%[x]\nadd %[lda],%[x]\n"

/* Beside 16 steps, a line of X: that line of the next tile's rows is asked for, and of the panel
 * that comes next some lines. */
#define ASK(cache, at) "prefetch" cache " " at "\n"
#define ASK_W(line) ASK("t1", #line "*64(%[next])")
#define ASK_FOUR(a, b, c, d) ASK_W(a) ASK_W(b) ASK_W(c) ASK_W(d)
#define SIXTEEN_STEPS(h, w0, w1, w2, w3, lines)                            \
    ASK("t0", "(%[x])") STEP_##h(0) ASK("t0", "(%[x],%[lda])") STEP_##h(1) \
    ASK("t0", "(%[x],%[lda],2)") STEP_##h(2) w0 STEP_##h(3)                \
    ASK("t0", "(%[x3])") STEP_##h(4)                                       \
    ASK("t0", "(%[x3],%[lda])") STEP_##h(5)                                \
    ASK("t0", "(%[x3],%[lda],2)") STEP_##h(6) w1 STEP_##h(7)               \
    STEP_##h(8) STEP_##h(9) STEP_##h(10) w2 STEP_##h(11)                   \
    STEP_##h(12) STEP_##h(13) STEP_##h(14) w3 STEP_##h(15)                 \
    "add $64,%[a]\nadd $64,%[low]\nadd $1024,%[b]\n"                       \
    "add $64,%[x]\nadd $64,%[x3]\nadd $" #lines "*64,%[next]\n"
#define ASKING_ALL(h)                                            \
    SIXTEEN_STEPS(h, ASK_FOUR(0, 1, 2, 3), ASK_FOUR(4, 5, 6, 7), \
                  ASK_FOUR(8, 9, 10, 11), ASK_FOUR(12, 13, 14, 15), 16)
#define ASKING_FOUR_LINES(h) SIXTEEN_STEPS(h, ASK_W(0), ASK_W(1), ASK_W(2), ASK_W(3), 4)

/* The rows of the tile at p, p3 being its fourth, ld bytes apart; and where they end. */
#define EACH_ROW_5(DO, p, p3, ld)                                               \
    DO("(" p ")", 0, 1) DO("(" p "," ld ")", 2, 3) DO("(" p "," ld ",2)", 4, 5) \
    DO("(" p3 ")", 6, 7) DO("(" p3 "," ld ")", 8, 9)
#define EACH_ROW_6(DO, p, p3, ld) \
    EACH_ROW_5(DO, p, p3, ld) DO("(" p3 "," ld ",2)", 10, 11)
#define END_5(p3, ld, end) "lea (" p3 "," ld ",2)," end "\n"
#define END_6(p3, ld, end) END_5(p3, ld, end) "add " ld "," end "\n"
#define ADD_ROW(at, s0, s1)                             \
    "vaddps " at "," TILE_SUM(s0) "," TILE_SUM(s0) "\n" \
    "vaddps 32" at "," TILE_SUM(s1) "," TILE_SUM(s1) "\n"
#define KEEP_ROW(at, s0, s1) "vmovups " TILE_SUM(s0) "," at "\nvmovups " TILE_SUM(s1) ",32" at "\n"
#define SEND_ROW(at, s0, s1)                             \
    "vaddps %%ymm12," TILE_SUM(s0) "," TILE_SUM(s0) "\n" \
    "vaddps %%ymm13," TILE_SUM(s1) "," TILE_SUM(s1) "\n" \
    KEEP_ROW(at, s0, s1)

/* x and x3: the next tile's rows 0 and 3. */
#define TILES(h, steps)                                                                    \
    __asm__ volatile(                                                                      \
        "mov " RUN_X ",%[a]\n"                                                             \
        "mov " RUN_W ",%[b]\n"                                                             \
        "mov " RUN_SUM ",%[sum]\n"                                                         \
        "mov " RUN_NEXT ",%[next]\n"                                                       \
        "5:\n"                                                                             \
        NEXT_TILE_##h                                                                      \
        "cmpq $1," RUN_TILES "\n"                                                          \
        "cmove " RUN_AFTER ",%[x]\n"                                                       \
        "lea (%[lda],%[lda],2),%[x3]\n"                                                    \
        "lea (%[a],%[x3]),%[low]\n"                                                        \
        "add %[x],%[x3]\n"                                                                 \
        "mov %[x]," RUN_X "\n"                                                             \
        TILE_ZEROS                                                                         \
        "mov " RUN_ROUNDS ",%[rounds]\n"                                                   \
        ".p2align 5\n"                                                                     \
        "1:\n"                                                                             \
        steps(h)                                                                           \
        "sub $1,%[rounds]\n"                                                               \
        "jnz 1b\n"                                                                         \
        "mov " RUN_W ",%[b]\n"                                                             \
        "lea (%[lds],%[lds],2),%[sum3]\n"                                                  \
        "add %[sum],%[sum3]\n"                                                             \
        "cmpq $0," RUN_ADD "\n"                                                            \
        "je 6f\n"                                                                          \
        EACH_ROW_##h(ADD_ROW, "%[sum]", "%[sum3]", "%[lds]")                               \
        "6:\n"                                                                             \
        "cmpq $0," RUN_ENDS "\n"                                                           \
        "jne 7f\n"                                                                         \
        EACH_ROW_##h(KEEP_ROW, "%[sum]", "%[sum3]", "%[lds]")                              \
        "8:\n"                                                                             \
        "mov " RUN_X ",%[a]\n"                                                             \
        END_##h("%[sum3]", "%[lds]", "%[sum]")                                             \
        "subq $1," RUN_TILES "\n"                                                          \
        "jnz 5b\n"                                                                         \
        "mov %[sum]," RUN_SUM "\n"                                                         \
        "mov %[next]," RUN_NEXT "\n"                                                       \
        "jmp 9f\n"                                                                         \
        "7:\n"                                                                             \
        "mov " RUN_BIAS ",%[a]\n"                                                          \
        "vmovups (%[a]),%%ymm12\n"                                                         \
        "vmovups 32(%[a]),%%ymm13\n"                                                       \
        "mov " RUN_OUT(0) ",%[a]\n"                                                        \
        "mov " RUN_OUT_LD ",%[rounds]\n"                                                   \
        "lea (%[rounds],%[rounds],2),%[low]\n"                                             \
        "add %[a],%[low]\n"                                                                \
        EACH_ROW_##h(SEND_ROW, "%[a]", "%[low]", "%[rounds]")                              \
        END_##h("%[low]", "%[rounds]", "%[a]")                                             \
        "mov %[a]," RUN_OUT(0) "\n"                                                        \
        "jmp 8b\n"                                                                         \
        "9:\n"                                                                             \
        "vzeroupper\n"                                                                     \
        : [a] "=&r"(a), [low] "=&r"(low), [b] "=&r"(b), [x] "=&r"(x), [x3] "=&r"(x3),      \
          [sum] "=&r"(sum), [sum3] "=&r"(sum3), [next] "=&r"(next), [rounds] "=&r"(rounds) \
        : [run] "r"(run), [lda] "r"(lda), [lds] "r"(lds)                                   \
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",  \
          "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")
/* clang-format on */

/* Are these so few that each asks for more? */
static int is_few(const struct run *run) {
    return run->of < 3;
}

static void high_tiles(struct run *run, const struct qkv_multiply *g) {
    const ptrdiff_t size = sizeof(float), lda = g->x_ld * size, lds = g->sum_ld * size;
    const float *a, *low, *b, *x, *x3, *sum, *sum3, *next;
    ptrdiff_t rounds;
    if (is_few(run))
        TILES(6, ASKING_ALL);
    else
        TILES(6, ASKING_FOUR_LINES);
}

static void low_tiles(struct run *run, const struct qkv_multiply *g) {
    const ptrdiff_t size = sizeof(float), lda = g->x_ld * size, lds = g->sum_ld * size;
    const float *a, *low, *b, *x, *x3, *sum, *sum3, *next;
    ptrdiff_t rounds;
    if (is_few(run))
        TILES(5, ASKING_ALL);
    else
        TILES(5, ASKING_FOUR_LINES);
}

#include "tmpl/project.h"

const struct qkv_project_kernels qkv_avx2_project = {
    .variant = ROOM_NAME,
    .multiply = ROOM(multiply),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
    .few = FEW,
    .multiply_lanes = multiply_lanes,
    .laned = 3 * LANED_ROWS - 1, /* 18 tokens are faster by whole tiles */
    .window = 7 * QKV_STRETCH,
};
