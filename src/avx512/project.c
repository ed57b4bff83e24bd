/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection in AVX-512 (struct qkv_multiply in kernels.h): the tiles of a strip, for many
 * tokens and for few; the walk over them and the rows' way out are tmpl/project.h's, the packing
 * pack.c's. X is broadcast, one element a row and input; W comes in whole vectors. Reads and writes
 * exactly what the sizes say.
 *
 * Many tokens: 6 rows by 64 columns, as in tile.h. Whole tiles are assembly from one row to the
 * next (high_tiles, low_tiles): where compilers join a stretch, the FMAs wait for 4 to 7 % of the
 * time. Beside the steps X and the sums of the next tile are asked for, and what comes next of W.
 * What is left over of inputs and columns goes by tiles of its own, which ask for W where they read
 * it and, a line an input, for what comes next.
 *
 * Few tokens: two panels, so that twelve rows have their chains in registers and few have enough of
 * them; W is prefetched where it is read, as the hardware stops at the end of a page: 2 KiB ahead
 * into the first-level cache, or, where a processor's own prefetchers are good at it and would miss
 * the few buffers that this one has for lines on their way, 4 KiB ahead into the second. The former
 * bring four streams 1.1 to 1.2 times as fast as two: up to six tokens take four panels there, and
 * from memory what comes next is asked for in lanes instead (tmpl/project_lanes.h).
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

enum { LANED_ROWS = 12 };
#include "tmpl/project_lanes.h"

enum { FEW = 12, GROUPS = NR / QKV_PANEL };

/* How far ahead, in inputs, W is asked for where it is read, and so into which cache; the nearest
 * also ask for what comes next. Or else every step, or every second one, asks for what comes next
 * in lanes. */
enum { EVERY = 1, SECOND = 2, NEXT = 8, NEAR = 32, FAR = 64 };
#define LANED(far) ((far) <= SECOND)

/* Panels of a tile of few tokens. */
static int few_panels(const struct qkv_multiply *g) {
    return g->follows || g->tokens > MR ? 2 : GROUPS;
}

static int laned_panels(int rows) {
    return rows > MR ? 2 : GROUPS;
}

/* One input. M and G are constants where this is inlined, so that acc lives in registers. */
static inline __attribute__((always_inline)) void
step(__m512 acc[FEW][GROUPS], const struct place at, const int M, const int G) {
    __m512 w[GROUPS];
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++)
        w[v] = _mm512_loadu_ps(at.w + v * at.w_panel);
    QKV_UNROLL(12)
    for (int r = 0; r < M; r++) {
        __m512 x = _mm512_set1_ps(at.x[r * at.x_ld]);
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++) {
            acc[r][v] = _mm512_fmadd_ps(x, w[v], acc[r][v]);
            /* Keeps it in its register, and the next input's loads where they are: compilers would
             * take those early, and push an accumulator out. */
            __asm__ volatile("" : "+v"(acc[r][v]));
        }
    }
}

/* Asks for W's line that is `far` inputs ahead. */
static inline __attribute__((always_inline)) void ask(const struct place at, const int G,
                                                      const int far) {
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++) {
        const void *line = (const void *)line_of(at.w + v * at.w_panel, far);
        if (far == FAR)
            _mm_prefetch(line, _MM_HINT_T1);
        else
            _mm_prefetch(line, _MM_HINT_T0);
    }
}

/* What step i of a turn asks for; ahead: where the turn's part of what comes next begins. */
static inline __attribute__((always_inline)) void look_ahead(const struct place at,
                                                             const struct lanes *ahead, const int i,
                                                             const int G, const int far) {
    if (LANED(far))
        ask_lanes(ahead, i, far, G);
    else
        ask(at, G, far);
    if (far == NEXT)
        _mm_prefetch((const void *)(ahead->line + (uintptr_t)i * LINE), _MM_HINT_T1);
}

/* How far n steps come in what comes next. */
static inline __attribute__((always_inline)) uintptr_t gone(ptrdiff_t n, const int G,
                                                            const int far) {
    return LANED(far) ? asked(n, far, G) : (uintptr_t)n * LINE;
}

/* The chains of n inputs, from zero. */
static inline __attribute__((always_inline)) void stretch(__m512 acc[FEW][GROUPS], struct place at,
                                                          struct lanes ahead, ptrdiff_t n,
                                                          const int M, const int G, const int far) {
    QKV_UNROLL(12)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            acc[r][v] = _mm512_setzero_ps();
    }

    const int turn = LANED(far) ? 8 : 4;
    for (; n >= turn; n -= turn) {
        QKV_UNROLL(8)
        for (int i = 0; i < turn; i++) {
            look_ahead(at, &ahead, i, G, far);
            step(acc, at, M, G);
            at.x++;
            at.w += QKV_PANEL;
        }
        ahead.line += gone(turn, G, far);
    }
#pragma GCC unroll 1
    for (; n > 0; n--) {
        step(acc, at, M, G);
        at.x++;
        at.w += QKV_PANEL;
    }
}

/* Joins the stretch to the ones before; whole sums go out. */
static inline __attribute__((always_inline)) void join(__m512 acc[FEW][GROUPS],
                                                       const struct qkv_multiply *g,
                                                       const struct tile *t, int add, int ends,
                                                       const int M, const int G) {
    float *sum = g->sum + t->row * g->sum_ld + t->panel * QKV_PANEL;
    if (add) {
        QKV_UNROLL(12)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(4)
            for (int v = 0; v < G; v++)
                acc[r][v] = _mm512_add_ps(_mm512_loadu_ps(sum + r * g->sum_ld + v * 16), acc[r][v]);
        }
    }
    if (!ends) {
        QKV_UNROLL(12)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(4)
            for (int v = 0; v < G; v++)
                _mm512_storeu_ps(sum + r * g->sum_ld + v * 16, acc[r][v]);
        }
        return;
    }
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++) {
        const int panel = t->panel + v;
        float *out = g->out[panel] + t->row * g->out_ld;
        __m512 bias = g->bias ? _mm512_loadu_ps(g->bias + panel * QKV_PANEL) : _mm512_setzero_ps();
        QKV_UNROLL(12)
        for (int r = 0; r < M; r++)
            _mm512_storeu_ps(out + r * g->out_ld, _mm512_add_ps(acc[r][v], bias));
    }
}

static inline __attribute__((always_inline)) void
tile(const struct qkv_multiply *g, const struct tile *t, const int M, const int G, const int far) {
    struct place at = {g->x + t->row * g->x_ld, g->w + t->panel * g->w_panel, g->x_ld, g->w_panel};
    int add = g->add;
    struct lanes ahead = lanes_of(g, t);
    if (far == NEXT && !t->lines)
        ahead.line = (uintptr_t)at.w; /* which is there */
    for (ptrdiff_t left = g->k; left > 0;) {
        __m512 acc[FEW][GROUPS];
        const ptrdiff_t n = left < QKV_STRETCH ? left : QKV_STRETCH;
        stretch(acc, at, ahead, n, M, G, far);
        ahead.line += gone(n, G, far);
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

#define TILE(name, rows, groups, far)                                                          \
    static void name##_##rows##x##groups(const struct qkv_multiply *g, const struct tile *t) { \
        tile(g, t, rows, groups, far);                                                         \
    }
/* By the number of panels: few tokens take powers of two alone, in lanes only one width, and many
 * any number up to four. */
#define ONLY_TWO(name, rows, far) TILE(name, rows, 2, far)
#define ONLY_FOUR(name, rows, far) TILE(name, rows, 4, far)
#define TWO(name, rows, far) TILE(name, rows, 1, far) TILE(name, rows, 2, far)
#define FOUR(name, rows, far) TWO(name, rows, far) TILE(name, rows, 4, far)
#define ANY(name, rows, far) FOUR(name, rows, far) TILE(name, rows, 3, far)
#define SIX_OF(DO, name, far) \
    DO(name, 1, far)          \
    DO(name, 2, far) DO(name, 3, far) DO(name, 4, far) DO(name, 5, far) DO(name, 6, far)
#define SIX_MORE_OF(DO, name, far) \
    DO(name, 7, far)               \
    DO(name, 8, far) DO(name, 9, far) DO(name, 10, far) DO(name, 11, far) DO(name, 12, far)
SIX_OF(FOUR, near, NEAR)
SIX_MORE_OF(TWO, near, NEAR)
SIX_OF(TWO, far, FAR)
SIX_MORE_OF(TWO, far, FAR)
SIX_OF(ONLY_FOUR, every, EVERY)
SIX_MORE_OF(ONLY_TWO, every, EVERY)
ONLY_TWO(second, 6, SECOND)
SIX_MORE_OF(ONLY_TWO, second, SECOND)
SIX_OF(ANY, many, NEXT)

#define TWO_ALONE(name, rows, far) name##_##rows##x2,
#define FOUR_ALONE(name, rows, far) name##_##rows##x4,
#define TWO_TILES(name, rows, far) {name##_##rows##x1, name##_##rows##x2},
#define FOUR_TILES(name, rows, far) {name##_##rows##x1, name##_##rows##x2, NULL, name##_##rows##x4},
#define ANY_TILES(name, rows, far) \
    {name##_##rows##x1, name##_##rows##x2, name##_##rows##x3, name##_##rows##x4},

static void few_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[2][FEW][GROUPS] = {
        {SIX_OF(FOUR_TILES, near, ) SIX_MORE_OF(TWO_TILES, near, )},
        {SIX_OF(TWO_TILES, far, ) SIX_MORE_OF(TWO_TILES, far, )},
    };
    tiles[g->follows != 0][t->rows - 1][t->panels - 1](g, t);
}

/* Where two tiles share the lanes they have six rows or more. */
static void laned_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[2][LANED_ROWS] = {
        {SIX_OF(FOUR_ALONE, every, ) SIX_MORE_OF(TWO_ALONE, every, )},
        {NULL, NULL, NULL, NULL, NULL, TWO_ALONE(second, 6, ) SIX_MORE_OF(TWO_ALONE, second, )},
    };
    tiles[t->of - 1][t->rows - 1](g, t);
}

static void many_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[MR][GROUPS] = {SIX_OF(ANY_TILES, many, )};
    tiles[t->rows - 1][t->panels - 1](g, t);
}

/* ---- Whole tiles ---- */

/* With fewer tokens nearly every tile would read W while it comes from the second-level cache. */
enum { LEAST = 4 * MR };
_Static_assert(NR == QKV_STRIP * QKV_PANEL, "the sums of a strip of such tiles are theirs alone");
#include "tmpl/project_stretch.h"

/* clang-format off */
/* Of tiles of six rows, and of five. */
#define STEP_6(n) TILE_LOAD(#n "*64") TILE_STEP(#n "*4")
#define STEP_5(n) TILE_LOAD(#n "*64") TILE_LOW_STEP(#n "*4")
#define NEXT_TILE_6 "lea (%%rax,%[lda],4),%%r12\nlea (%%r12,%[lda],2),%%r12\n"
#define NEXT_TILE_5 "lea (%%rax,%[lda],4),%%r12\nadd %[lda],%%r12\n"
#define SUMS_6 "1536"
#define SUMS_5 "1280"

/* Beside 16 steps, a line of X: that line of the next tile's rows is asked for, an eighth of its
 * sums, and of each panel that comes next some lines. */
#define ASK(cache, at) "prefetch" cache " " at "\n"
#define ASK_SUM(h, n) ASK("t0", #n "*64+" SUMS_##h "(%%r11)")
#define ASK_W(line)                                                    \
    ASK("t1", #line "*64(%%r9)") ASK("t1", #line "*64(%%r9,%[panel])") \
    ASK("t1", #line "*64(%%r9,%[panel],2)") ASK("t1", #line "*64(%%r9,%%r8)")

#define SIXTEEN_STEPS(h, w0, w1, w2, w3, lines)        \
    ASK("t0", "(%%r12)") STEP_##h(0)                   \
    ASK("t0", "(%%r12,%[lda])") STEP_##h(1)            \
    ASK("t0", "(%%r12,%[lda],2)") STEP_##h(2)          \
    ASK("t0", "(%%r13)") w0 STEP_##h(3)                \
    ASK("t0", "(%%r13,%[lda])") STEP_##h(4)            \
    ASK("t0", "(%%r13,%[lda],2)") STEP_##h(5)          \
    ASK_SUM(h, 0) STEP_##h(6) w1 STEP_##h(7)           \
    ASK_SUM(h, 1) STEP_##h(8) STEP_##h(9)              \
    ASK_SUM(h, 2) STEP_##h(10) STEP_##h(11)            \
    w2 STEP_##h(12) STEP_##h(13) w3 STEP_##h(14)       \
    STEP_##h(15)                                       \
    "add $1024,%%rcx\nadd $64,%%r12\n"                 \
    "add $64,%%r13\nadd $192,%%r11\n"                  \
    "add $" #lines "*64,%%r9\n"
#define ASKING_FOUR_LINES(h) SIXTEEN_STEPS(h, ASK_W(0), ASK_W(1), ASK_W(2), ASK_W(3), 4)
#define ASKING_TWO_LINES(h) SIXTEEN_STEPS(h, , , ASK_W(0), ASK_W(1), 2)

#define SUM_AT(n) #n "*64(%%r11)"
#define ADD_SUM(n) "vaddps " SUM_AT(n) "," TILE_SUM(n) "," TILE_SUM(n) "\n"
#define KEEP_SUM(n) "vmovups " TILE_SUM(n) "," SUM_AT(n) "\n"
#define EACH_SUM_5(DO)                                             \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9)    \
    DO(10) DO(11) DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) \
    DO(19)
#define EACH_SUM_6(DO) EACH_SUM_5(DO) DO(20) DO(21) DO(22) DO(23)

/* A panel's column of the tile goes out, and its pointer moves on to the next tile's. r10: bytes
 * from row to row. */
#define SEND_SUM(n, at) "vaddps %%zmm24," TILE_SUM(n) "," TILE_SUM(n) "\n" \
                        "vmovups " TILE_SUM(n) "," at "\n"
#define SEND_LAST_5(s)
#define SEND_LAST_6(s) SEND_SUM(s, "(%%rdx,%%r10,2)") "add %%r10,%%rdx\n"
#define SEND_PANEL(h, v, s0, s1, s2, s3, s4, s5)               \
    "mov " RUN_OUT(v) ",%%rax\n"                               \
    "lea (%%r10,%%r10,2),%%rdx\nadd %%rax,%%rdx\n"             \
    "mov " RUN_BIAS ",%%r8\nvmovups " #v "*64(%%r8),%%zmm24\n" \
    SEND_SUM(s0, "(%%rax)") SEND_SUM(s1, "(%%rax,%%r10)")      \
    SEND_SUM(s2, "(%%rax,%%r10,2)") SEND_SUM(s3, "(%%rdx)")    \
    SEND_SUM(s4, "(%%rdx,%%r10)") SEND_LAST_##h(s5)            \
    "lea (%%rdx,%%r10,2),%%rdx\nmov %%rdx," RUN_OUT(v) "\n"

/* r12 and r13: the next tile's rows 0 and 3. r11: the sums, beside the steps the next tile's. */
#define TILES(h, steps)                                                             \
    __asm__ volatile(                                                               \
        "mov " RUN_X ",%%rax\n"                                                     \
        "mov " RUN_W ",%%rcx\n"                                                     \
        "mov " RUN_NEXT ",%%r9\n"                                                   \
        "lea (%[panel],%[panel],2),%%r8\n"                                          \
        "5:\n"                                                                      \
        NEXT_TILE_##h                                                               \
        "cmpq $1," RUN_TILES "\n"                                                   \
        "cmove " RUN_AFTER ",%%r12\n"                                               \
        "lea (%[lda],%[lda],2),%%r13\n"                                             \
        "lea (%%rax,%%r13),%%rdx\n"                                                 \
        "add %%r12,%%r13\n"                                                         \
        "mov %%r12," RUN_X "\n"                                                     \
        "mov " RUN_SUM ",%%r11\n"                                                   \
        TILE_ZEROS                                                                  \
        "mov " RUN_ROUNDS ",%%r10\n"                                                \
        TILE_LOOP(1, steps(h), "64")                                                \
        "mov " RUN_W ",%%rcx\n"                                                     \
        "mov " RUN_SUM ",%%r11\n"                                                   \
        "cmpq $0," RUN_ADD "\n"                                                     \
        "je 6f\n"                                                                   \
        EACH_SUM_##h(ADD_SUM)                                                       \
        "6:\n"                                                                      \
        "cmpq $0," RUN_ENDS "\n"                                                    \
        "jne 7f\n"                                                                  \
        EACH_SUM_##h(KEEP_SUM)                                                      \
        "8:\n"                                                                      \
        "mov " RUN_X ",%%rax\n"                                                     \
        "addq $" SUMS_##h "," RUN_SUM "\n"                                          \
        "subq $1," RUN_TILES "\n"                                                   \
        "jnz 5b\n"                                                                  \
        "mov %%r9," RUN_NEXT "\n"                                                   \
        "jmp 9f\n"                                                                  \
        "7:\n"                                                                      \
        "mov " RUN_OUT_LD ",%%r10\n"                                                \
        SEND_PANEL(h, 0, 0, 4, 8, 12, 16, 20)                                       \
        SEND_PANEL(h, 1, 1, 5, 9, 13, 17, 21)                                       \
        SEND_PANEL(h, 2, 2, 6, 10, 14, 18, 22)                                      \
        SEND_PANEL(h, 3, 3, 7, 11, 15, 19, 23)                                      \
        "lea (%[panel],%[panel],2),%%r8\n"                                          \
        "jmp 8b\n"                                                                  \
        "9:\n"                                                                      \
        "vzeroupper\n"                                                              \
        :                                                                           \
        : [run] "r"(run), [lda] "r"(g->x_ld * size), [panel] "r"(g->w_panel * size) \
        : TILE_USES, "r11", "r12", "r13", TILE_SUMS)
/* clang-format on */

/* Are these so few that each asks for more? */
static int is_few(const struct run *run) {
    return run->of < 8;
}

static void high_tiles(struct run *run, const struct qkv_multiply *g) {
    const ptrdiff_t size = sizeof(float);
    if (is_few(run))
        TILES(6, ASKING_FOUR_LINES);
    else
        TILES(6, ASKING_TWO_LINES);
}

static void low_tiles(struct run *run, const struct qkv_multiply *g) {
    const ptrdiff_t size = sizeof(float);
    if (is_few(run))
        TILES(5, ASKING_FOUR_LINES);
    else
        TILES(5, ASKING_TWO_LINES);
}

#include "tmpl/project.h"

const struct qkv_project_kernels qkv_avx512_project = {
    .variant = ROOM_NAME,
    .multiply = ROOM(multiply),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
    .few = FEW,
    .multiply_lanes = multiply_lanes,
    .laned = 2 * LANED_ROWS - 1, /* 24 tokens are faster by whole tiles */
    .window = 5 * QKV_STRETCH,
    .wide_from = 5 << 18,
};
