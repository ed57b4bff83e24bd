/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qkv: the kernels of attention for CPUs.
 *
 *   Q = X W^Q   K = X W^K   V = X W^V          qkv_project
 *   S = scale Q K^T, then the masks            qkv_scores
 *   A = softmax(S)                             qkv_softmax
 *   O = A V                                    qkv_mix
 *   O from Q, K and V in one pass              qkv_attention
 *   O from Q and a key/value cache             qkv_decode, in qkv/cache.h
 *
 * Conventions that hold for every function here:
 *
 * - A call returns a qkv_status: QKV_OK, or which argument has which fault. Every argument is
 *   checked before anything is written; after an error the outputs are as they were, but for two
 *   that come up during the work: a parallel_for that fails, after which outputs hold what was done
 *   by then, and see attention_backward's lse.
 * - Lengths and strides are in elements, sizes of memory in bytes.
 * - No call allocates, locks, prints, starts a thread or enters the operating system. Memory to
 *   work in (the workspace) and threads are the caller's.
 * - Outputs may not overlap themselves, each other, or an input, unless the function says so.
 *   Interleaved views (the Q, K and V slices of one buffer) do not count as overlapping.
 * - Parameter structs begin with their size and are filled by their _init function. A struct
 *   from a newer header is accepted if the bytes this library does not know are zero.
 * - Within one instruction set an output row has the same bits for any number of threads, any
 *   division into parts, alone or in any batch, in one call or in chunks. Gradients, which are
 *   sums over a whole sequence, for any threads and parts, alone or in any batch.
 */
#ifndef QKV_QKV_H
#define QKV_QKV_H

#include <stddef.h>
#include <stdint.h>

#include <qkv/version.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QKV_API __attribute__((visibility("default")))
#else
#define QKV_API
#endif

/* ---- Status ------------------------------------------------------------------------------ */

/* 0 is success; anything else holds an argument and its fault (see qkv_status_arg, _fault). */
typedef int32_t qkv_status;
#define QKV_OK 0

/* What can be wrong with an argument: DO(NAME, sentence). */
#define QKV_FAULTS(DO)                                                                      \
    DO(NULL, "is a null pointer")                                                           \
    DO(MISALIGNED, "is not aligned (workspaces, caches, packed weights: to QKV_ALIGNMENT)") \
    DO(NEGATIVE, "is negative")                                                             \
    DO(ZERO, "is zero")                                                                     \
    DO(RANGE, "is out of range")                                                            \
    DO(MULTIPLE, "is not a multiple of what its comment says")                              \
    DO(STRIDE, "has strides that are not allowed here")                                     \
    DO(SELF_OVERLAP, "has strides that make it overlap itself")                             \
    DO(OVERLAP, "overlaps another argument")                                                \
    DO(OVERFLOW, "is too large: its size does not fit in memory")                           \
    DO(TOO_SMALL, "is too small")                                                           \
    DO(DTYPE, "has no dtype, or one that this stage does not have")                         \
    DO(FLAG, "has a flag that this library does not know")                                  \
    DO(FUTURE, "comes from a newer header and uses what this library lacks")                \
    DO(SIZE, "does not begin with its size (was it initialised?)")                          \
    DO(LENGTH, "holds a sequence length that is negative or beyond the declared size")      \
    DO(ORDER, "decreases")                                                                  \
    DO(CONFLICT, "cannot be given together with another argument: see its comment")         \
    DO(VALUE, "is not a finite number")                                                     \
    DO(LAYOUT, "is not packed in the layout, version or shape that is needed here")         \
    DO(STALE, "was not made by the function that goes with this call, or holds no more")    \
    DO(FAILED, "reported a failure, or did not do every part once")                         \
    DO(FULL, "has no room for more tokens")                                                 \
    DO(SHARED, "names a page that is held already, or names it twice")                      \
    DO(CHECKSUM, "was altered: its checksum does not match")                                \
    DO(NOT_EMPTY, "has tokens already")                                                     \
    DO(UNAVAILABLE, "is not available for these types with this context's features")        \
    DO(MISMATCH, "is not that of the cache")

/* Which argument is meant: DO(NAME, name as the caller knows it). */
#define QKV_ARGS(DO)                          \
    DO(PLAN, "plan")                          \
    DO(PARAMS, "params")                      \
    DO(TENSORS, "tensors")                    \
    DO(CONTEXT, "context")                    \
    DO(CONFIG, "config")                      \
    DO(EXEC, "exec")                          \
    DO(FLAGS, "flags")                        \
    DO(BATCH, "batch")                        \
    DO(Q_HEADS, "q_heads")                    \
    DO(KV_HEADS, "kv_heads")                  \
    DO(Q_LEN, "q_len")                        \
    DO(KV_LEN, "kv_len")                      \
    DO(HEAD_DIM, "head_dim")                  \
    DO(V_DIM, "v_dim")                        \
    DO(SCALE, "scale")                        \
    DO(SOFTCAP, "softcap")                    \
    DO(EXP, "exp")                            \
    DO(ALIGN, "align")                        \
    DO(WINDOW_LEFT, "window_left")            \
    DO(WINDOW_RIGHT, "window_right")          \
    DO(ALIBI, "alibi_slopes")                 \
    DO(SINKS, "sinks")                        \
    DO(BIAS, "bias")                          \
    DO(MASK, "mask")                          \
    DO(Q_LENS, "q_lens")                      \
    DO(KV_LENS, "kv_lens")                    \
    DO(CU_Q, "cu_q")                          \
    DO(CU_KV, "cu_kv")                        \
    DO(Q, "q")                                \
    DO(K, "k")                                \
    DO(V, "v")                                \
    DO(SCORES, "scores")                      \
    DO(WEIGHTS, "weights")                    \
    DO(OUT, "out")                            \
    DO(LSE, "lse")                            \
    DO(TOKENS, "tokens")                      \
    DO(D_MODEL, "d_model")                    \
    DO(LAYOUT, "layout")                      \
    DO(X, "x")                                \
    DO(WQ, "wq")                              \
    DO(WK, "wk")                              \
    DO(WV, "wv")                              \
    DO(BQ, "bq")                              \
    DO(BK, "bk")                              \
    DO(BV, "bv")                              \
    DO(PACKED, "packed")                      \
    DO(WHICH, "which")                        \
    DO(PHASE, "phase")                        \
    DO(BEGIN, "begin")                        \
    DO(END, "end")                            \
    DO(WORKSPACE, "workspace")                \
    DO(WORKSPACE_SHARED, "workspace->shared") \
    DO(WORKSPACE_WORKER, "workspace->worker") \
    DO(THREADS, "threads")                    \
    DO(PARALLEL_FOR, "parallel_for")          \
    DO(ISA, "isa")                            \
    DO(GRADIENTS, "gradients")                \
    DO(D_OUT, "gradients->out")               \
    DO(D_WEIGHTS, "gradients->weights")       \
    DO(D_SCORES, "gradients->scores")         \
    DO(D_Q, "gradients->q")                   \
    DO(D_K, "gradients->k")                   \
    DO(D_V, "gradients->v")                   \
    DO(D_BIAS, "gradients->bias")             \
    DO(D_SINKS, "gradients->sinks")           \
    DO(D_X, "gradients->x")                   \
    DO(D_WQ, "gradients->wq")                 \
    DO(D_WK, "gradients->wk")                 \
    DO(D_WV, "gradients->wv")                 \
    DO(D_BQ, "gradients->bq")                 \
    DO(D_BK, "gradients->bk")                 \
    DO(D_BV, "gradients->bv")                 \
    DO(ROWS, "rows")                          \
    DO(COLUMNS, "columns")                    \
    DO(KIND, "kind")                          \
    DO(PREDICTION, "prediction")              \
    DO(TARGET, "target")                      \
    DO(LABELS, "labels")                      \
    DO(GRADIENT, "gradient")                  \
    DO(LOSS, "loss")                          \
    DO(NUMBERS, "count")                      \
    DO(STEP, "step")                          \
    DO(RULE, "rule")                          \
    DO(RATE, "rate")                          \
    DO(GRADIENT_SCALE, "gradient_scale")      \
    DO(MOMENTUM, "momentum")                  \
    DO(WEIGHT_DECAY, "weight_decay")          \
    DO(BETA1, "beta1")                        \
    DO(BETA2, "beta2")                        \
    DO(EPSILON, "epsilon")                    \
    DO(ARRAYS, "arrays")                      \
    DO(MEAN, "mean")                          \
    DO(SQUARE, "square")                      \
    DO(SUM, "sum")                            \
    DO(CACHE, "cache")                        \
    DO(PAGE_TOKENS, "page_tokens")            \
    DO(PAGES, "pages")                        \
    DO(SEQUENCE_PAGES, "sequence_pages")      \
    DO(K_DTYPE, "k_dtype")                    \
    DO(V_DTYPE, "v_dtype")                    \
    DO(MEMORY, "memory")                      \
    DO(TABLE, "table")                        \
    DO(LENGTHS, "lengths")                    \
    DO(HOLDERS, "holders")                    \
    DO(SEQUENCES, "sequences")                \
    DO(SEQUENCE, "sequence")                  \
    DO(TO, "to")                              \
    DO(FROM, "from")                          \
    DO(FIRST, "first")                        \
    DO(LENS, "lens")                          \
    DO(CU, "cu")                              \
    DO(ROPE_PAIRS, "rope.pairs")              \
    DO(ROPE_DIMS, "rope.dims")                \
    DO(ROPE_THETA, "rope.theta")              \
    DO(ROPE_POSITIONS, "rope.positions")      \
    DO(ROPE_COS, "rope.cos")                  \
    DO(ROPE_SIN, "rope.sin")                  \
    DO(ROPE_ROWS, "rope.table_rows")          \
    DO(BUFFER, "buffer")                      \
    DO(HEADS, "heads")                        \
    DO(LENGTH, "length")                      \
    DO(PARTS, "parts")                        \
    DO(PART_OUT, "part_out")                  \
    DO(PART_LSE, "part_lse")                  \
    DO(ARITHMETIC, "arithmetic")

#define QKV_ENUM_FAULT_(name, text) QKV_FAULT_##name,
#define QKV_ENUM_ARG_(name, text) QKV_ARG_##name,
typedef enum qkv_fault { QKV_FAULT_NONE, QKV_FAULTS(QKV_ENUM_FAULT_) QKV_FAULT_COUNT } qkv_fault;
typedef enum qkv_arg { QKV_ARG_NONE, QKV_ARGS(QKV_ENUM_ARG_) QKV_ARG_COUNT } qkv_arg;
#undef QKV_ENUM_FAULT_
#undef QKV_ENUM_ARG_

/* The two halves of a status; QKV_FAULT_NONE and QKV_ARG_NONE for QKV_OK. */
QKV_API qkv_fault qkv_status_fault(qkv_status status);
QKV_API qkv_arg qkv_status_arg(qkv_status status);

/* "ok", or a sentence such as "kv_heads is zero". Static storage, never NULL, for any value. */
QKV_API const char *qkv_status_string(qkv_status status);

/* "0.1.0": the version of the library in use. */
QKV_API const char *qkv_version(void);

/* ---- CPU features and contexts ----------------------------------------------------------- */

/* The rooms, one per instruction set. */
typedef enum qkv_isa {
    QKV_ISA_NONE, /* in a configuration: no cap */
    QKV_ISA_SCALAR,
    QKV_ISA_AVX2,
    QKV_ISA_AVX512,
    QKV_ISA_NEON,
    QKV_ISA_COUNT
} qkv_isa;

/* Feature bits: bit QKV_CPU_x of the words that the qkv_cpu_ functions return. DO(NAME, name). */
#define QKV_CPU_FEATURES(DO)     \
    DO(AVX2, "avx2")             \
    DO(FMA, "fma")               \
    DO(F16C, "f16c")             \
    DO(AVXVNNI, "avxvnni")       \
    DO(AVX512F, "avx512f")       \
    DO(AVX512BW, "avx512bw")     \
    DO(AVX512DQ, "avx512dq")     \
    DO(AVX512VL, "avx512vl")     \
    DO(AVX512VNNI, "avx512vnni") \
    DO(AVX512BF16, "avx512bf16") \
    DO(AVX512FP16, "avx512fp16") \
    DO(NEON, "neon")             \
    DO(FP16, "fp16")             \
    DO(DOTPROD, "dotprod")       \
    DO(BF16, "bf16")             \
    DO(I8MM, "i8mm")

#define QKV_ENUM_CPU_(name, text) QKV_CPU_##name,
typedef enum qkv_cpu_feature { QKV_CPU_FEATURES(QKV_ENUM_CPU_) QKV_CPU_COUNT } qkv_cpu_feature;
#undef QKV_ENUM_CPU_

/* Bit sets of qkv_cpu_feature, fixed when the library is loaded.
 * detected: what the processor reports. withheld: detected, but the operating system does not
 * save its registers. removed: detected and not withheld, but taken away by QKV_CPU_MAX or
 * QKV_CPU_DISABLE.
 * usable: detected, and neither withheld nor removed. */
QKV_API uint64_t qkv_cpu_detected(void);
QKV_API uint64_t qkv_cpu_withheld(void);
QKV_API uint64_t qkv_cpu_removed(void);
QKV_API uint64_t qkv_cpu_usable(void);

/* Bytes of the last-level cache, as the processor tells them when the library is loaded: several
 * cores may share it, and a hypervisor may claim more than it gives. 0 where it does not tell, as
 * on Arm. */
QKV_API int64_t qkv_cpu_last_cache(void);

/* "avx2" and so on; NULL when the number is none. */
QKV_API const char *qkv_cpu_feature_name(int feature);
QKV_API const char *qkv_isa_name(int isa);

/* 1 if the library was built with this room, 0 if not. */
QKV_API int qkv_isa_built(int isa);

/* The names in QKV_CPU_MAX and QKV_CPU_DISABLE that mean nothing here, separated by commas;
 * "" if there are none. Such names are ignored otherwise. */
QKV_API const char *qkv_cpu_unknown_overrides(void);

/* The stages that have kernels. */
typedef enum qkv_stage {
    QKV_STAGE_PROJECT,
    QKV_STAGE_SCORES,
    QKV_STAGE_SOFTMAX,
    QKV_STAGE_MIX,
    QKV_STAGE_ATTENTION,
    QKV_STAGE_PROJECT_BACKWARD,
    QKV_STAGE_SCORES_BACKWARD,
    QKV_STAGE_SOFTMAX_BACKWARD,
    QKV_STAGE_MIX_BACKWARD,
    QKV_STAGE_ATTENTION_BACKWARD,
    QKV_STAGE_LOSS,
    QKV_STAGE_DESCENT,
    QKV_STAGE_APPEND,
    QKV_STAGE_ROTATE,
    QKV_STAGE_DECODE,
    QKV_STAGE_MERGE,
    QKV_STAGE_COUNT
} qkv_stage;

QKV_API const char *qkv_stage_name(int stage);

/* An immutable binding of kernels to a set of CPU features, in the caller's memory. It may be
 * shared by threads, and must outlive the plans made with it. */
typedef struct qkv_context {
    uint64_t state[32];
} qkv_context;

typedef struct qkv_context_config {
    size_t size;
    uint64_t flags;    /* 0 */
    uint64_t disabled; /* features to do without: 1 << QKV_CPU_x, or-ed */
    int32_t isa_max;   /* a qkv_isa: the highest room to use; QKV_ISA_NONE for no cap */
    int32_t reserved;
    int64_t last_cache; /* bytes of the last-level cache that is there for calls, 1 or more; 0: what
                           the processor tells. The speed of qkv_decode depends on it, and no bit */
} qkv_context_config;

QKV_API void qkv_context_config_init(qkv_context_config *config);

/* Binds kernels to what qkv_cpu_usable() leaves after the configuration (NULL: all of it).
 * Configurations only take away. isa_max names a room that this build lacks, or last_cache is
 * negative: QKV_FAULT_RANGE. */
QKV_API qkv_status qkv_context_init(qkv_context *context, const qkv_context_config *config);

/* The context that the library made when it was loaded; what NULL stands for in a call. */
QKV_API const qkv_context *qkv_default_context(void);

/* The highest room that the context uses, and the name of the variant that a stage got. */
QKV_API qkv_isa qkv_context_isa(const qkv_context *context);
QKV_API const char *qkv_context_variant(const qkv_context *context, int stage);

/* Does what loading the library does, for those who want to decide the moment (a constructor
 * of theirs that runs before ours). Idempotent; safe from any thread. */
QKV_API void qkv_init(void);

/* ---- Tensors ----------------------------------------------------------------------------- */

typedef enum qkv_dtype {
    QKV_DTYPE_NONE, /* no tensor here */
    QKV_F32,        /* IEEE 754 binary32 */
    QKV_BOOL,       /* one byte, non-zero is true */
    QKV_F16,        /* IEEE 754 binary16: in a cache */
    QKV_BF16,       /* the upper half of a binary32: in a cache */
    QKV_I8,         /* one byte, from -127 to 127, times a scale: in a cache */
    QKV_DTYPE_COUNT
} qkv_dtype;

/* A view of memory: element (b, h, t, c) stands at data[b*stride[0] + h*stride[1] + t*stride[2]
 * + c*stride[3]]. stride[3] is 1 (a mask or bias may have 0); the others are free: any order,
 * zero to broadcast an input, negative to walk backwards. A dimension of size 1 or less ignores
 * its stride. data aligned to its element; NULL for a tensor that is absent or empty. */
typedef struct qkv_tensor {
    void *data;
    int64_t stride[4];
    int32_t dtype; /* a qkv_dtype */
    int32_t reserved;
} qkv_tensor;

/* Contiguous float32 [batch, heads, length, dim], and [batch, length, heads, dim]. A slice of rows
 * of `width` numbers, as Q is of a packed QKV buffer, is the second with stride[2] = width and
 * stride[0] = length * width. */
QKV_API qkv_tensor qkv_tensor_bhsd(const void *data, int64_t heads, int64_t length, int64_t dim);
QKV_API qkv_tensor qkv_tensor_bshd(const void *data, int64_t heads, int64_t length, int64_t dim);

/* A boolean mask [q_len, kv_len] for all heads and sequences; and weights that qkv_project_pack has
 * packed. */
QKV_API qkv_tensor qkv_tensor_mask(const void *data, int64_t kv_len);
QKV_API qkv_tensor qkv_tensor_packed(const void *packed);

/* ---- The parameters of attention --------------------------------------------------------- */

/* Where query i stands among the keys, which is what causal, window and ALiBi measure from. */
typedef enum qkv_align {
    QKV_ALIGN_BOTTOM_RIGHT, /* position = i + kv_len - q_len: the last query sees the last key */
    QKV_ALIGN_TOP_LEFT,     /* position = i: the first query sees the first key */
    QKV_ALIGN_COUNT
} qkv_align;

#define QKV_FLAG_SCALE UINT64_C(1)  /* scale is set; without it 1/sqrt(head_dim) */
#define QKV_FLAG_CAUSAL UINT64_C(2) /* keep the keys j <= position */

/* The exponential inside attention, all as powers of two. Their largest errors over the range that
 * softmax sees, and their speeds, are in docs/performance/accuracy.md. */
typedef enum qkv_exp {
    QKV_EXP_SLEEF_U10, /* the default: SLEEF's exp2, within 1 ULP */
    QKV_EXP_SLEEF_U35, /* SLEEF's exp2, within 3.5 ULP */
    QKV_EXP_POLY5,     /* inlined polynomial of degree 5: about 2 ULP; below 2^-126 it is 0, and in
                          AVX-512 may be denormal */
    QKV_EXP_POLY4,     /* of degree 4: a relative error of about 3e-6 */
    QKV_EXP_COUNT
} qkv_exp;

/* The arithmetic of decode's products (qkv_decode in cache.h). */
typedef enum qkv_arithmetic {
    QKV_ARITHMETIC_F32,    /* the default: float32, the stored numbers taken exactly */
    QKV_ARITHMETIC_NARROW, /* of the stored types' width: queries and weights are rounded to them */
    QKV_ARITHMETIC_COUNT
} qkv_arithmetic;

/* What scores, softmax, mix and attention share. For query head h, key/value head
 * h / (q_heads / kv_heads), query i at position p and key j:
 *
 *   s = scale * q . k
 *   s = softcap * tanh(s / softcap)       if softcap > 0
 *   s = s - alibi_slopes[h] * |p - j|     if alibi_slopes
 *   s = s + bias[b, h, i, j]              if bias
 *   s = -inf                              where masked
 *
 * A key is masked if j > p (causal), j < p - window_left, j > p + window_right, j beyond the
 * sequence's length, mask[b, h, i, j] is zero, bias[b, h, i, j] is below -2^127 (as -inf is, and
 * the most negative float, which many programs write for it), or s is -inf. A masked key
 * contributes nothing, whatever its K and V rows hold. A row with every key masked gives zeros and
 * LSE = -inf (with a sink: zeros and LSE = the sink). A score that is NaN or +inf makes its row
 * NaN. The sink is one more logit whose value vector is zero; one that is NaN or +inf makes every
 * row that has a key NaN. attention and qkv_decode take scores as powers of two, log2(e) s: those
 * beyond 2^127 in magnitude may be infinite there. Sums are float32 before they are scaled: q . k,
 * and in attention and qkv_decode what V adds up to before the division by the weights' sum.
 *
 * Sequence lengths: either q_lens (padded: sequence b has rows 0..q_lens[b]-1 of its q_len) or
 * cu_q (ragged: sequence b has rows cu_q[b]..cu_q[b+1]-1 of one long run, at most q_len of
 * them, and the batch stride of q, out, lse, scores and weights is ignored; rows before cu_q[0]
 * belong to no sequence); the same for keys with kv_lens, cu_kv and the tensors k and v. bias and
 * mask are always indexed by batch and by the position within the sequence. Where lengths differ,
 * positions use the sequence's own lengths. Output rows beyond a padded sequence's length are
 * written as a fully masked row without sink.
 *
 * The struct is copied into a plan; what its pointers point to is not, and is read when the plan is
 * made and when it runs. In between, the numbers of bias, mask, slopes and sinks may change, and
 * so may q_lens and kv_lens within what the plan was made for: a new sequence needs no new plan.
 * cu_q and cu_kv, which tell how much memory there is, must stay as they were (QKV_FAULT_STALE). */
typedef struct qkv_attention_params {
    size_t size;
    uint64_t flags; /* QKV_FLAG_ */
    int64_t batch;  /* 1 or more */
    int64_t q_heads; /* a multiple of kv_heads: GQA, MQA */
    int64_t kv_heads;
    int64_t q_len;        /* rows a sequence, at most; may be 0 */
    int64_t kv_len;       /* keys a sequence, at most; may be 0 */
    int64_t head_dim;     /* 1 to 512, of Q and K; not used by softmax, nor by mix if v_dim > 0 */
    int64_t v_dim;        /* 1 to 512, of V and O; 0: as head_dim. Not used by scores and softmax */
    float scale;          /* any finite number, with QKV_FLAG_SCALE; else 0 */
    float softcap;        /* 0: none; else at least FLT_MIN */
    int32_t align;        /* a qkv_align */
    int32_t exp;          /* a qkv_exp, of attention, its gradients and qkv_decode; the other stages
                             use the default */
    int64_t window_left;  /* -1: no limit; 0: nothing left of the position */
    int64_t window_right; /* -1: no limit */
    const float *alibi_slopes; /* [q_heads], or NULL */
    const float *sinks;        /* [q_heads], or NULL */
    qkv_tensor bias;           /* QKV_F32 [batch, q_heads, q_len, kv_len], any stride may be 0 */
    qkv_tensor mask;           /* QKV_BOOL, the same shape; non-zero keeps */
    const int32_t *q_lens;     /* [batch], or NULL */
    const int32_t *kv_lens;    /* [batch], or NULL */
    const int32_t *cu_q;       /* [batch + 1], or NULL */
    const int32_t *cu_kv;      /* [batch + 1], or NULL */
    int32_t arithmetic;        /* a qkv_arithmetic, of qkv_decode (cache.h); else 0 */
    int32_t reserved;
} qkv_attention_params;

#define QKV_HEAD_DIM_MAX 512

QKV_API void qkv_attention_params_init(qkv_attention_params *params);

/* The tensors of the four stages; a stage reads and writes those that it names. Shapes (for
 * ragged sequences the rows of all sequences end to end, without the batch):
 *   q        [batch, q_heads, q_len, head_dim]
 *   k        [batch, kv_heads, kv_len, head_dim]
 *   v        [batch, kv_heads, kv_len, v_dim]
 *   scores   [batch, q_heads, q_len, kv_len]
 *   weights  [batch, q_heads, q_len, kv_len]
 *   out      [batch, q_heads, q_len, v_dim]
 *   lse      [batch, q_heads, q_len, 1], natural logarithm; optional */
typedef struct qkv_tensors {
    size_t size;
    qkv_tensor q, k, v;
    qkv_tensor scores, weights;
    qkv_tensor out, lse;
} qkv_tensors;

QKV_API void qkv_tensors_init(qkv_tensors *tensors);

/* ---- Plan, then run ---------------------------------------------------------------------- */

#define QKV_MAX_PHASES 4

/* What a call will do, in the caller's memory. Make it with a _plan function, read the fields
 * named here, leave the rest alone. Phases run one after the other, with a barrier between them;
 * the parts of a phase are independent of each other and may run on any threads in any order.
 * Neither workspace shrinks as a length, a dimension or the batch grows. */
typedef struct qkv_plan {
    size_t workspace_shared;       /* bytes that all workers share; a multiple of QKV_ALIGNMENT */
    size_t workspace_worker;       /* bytes that each worker needs for itself; likewise */
    int32_t phases;                /* 0 when there is nothing to do */
    int32_t threads;               /* how many threads the shape is worth, at least 1 */
    int64_t parts[QKV_MAX_PHASES]; /* parts of each phase */
    uint64_t state[128];
} qkv_plan;

#define QKV_ALIGNMENT 64 /* of workspaces and packed weights */

/* The workspace of one worker. Both pointers aligned to QKV_ALIGNMENT; shared is the same for
 * all workers of a plan from its first phase to its last, worker is nobody else's. */
typedef struct qkv_workspace {
    void *shared;
    size_t shared_size;
    void *worker;
    size_t worker_size;
} qkv_workspace;

/* A task over the parts [begin, end). worker < the number of threads, and no two tasks that run
 * at the same time have the same worker. */
typedef void (*qkv_task)(void *argument, int worker, int64_t begin, int64_t end);

/* The caller's threads: runs task over disjoint ranges that cover [0, parts), with workers from 0
 * to threads - 1, and returns when all are done: 0, or anything else for a failure. One that leaves
 * out parts or does some twice, or names a worker or a part that is not there, has failed, too. */
typedef int (*qkv_parallel_for)(void *pool, int threads, int64_t parts, qkv_task task,
                                void *argument);

/* How a plain call runs; NULL in its place stands for the defaults. workspace holds
 * plan.workspace_shared + threads * plan.workspace_worker bytes (qkv_plan_workspace), aligned to
 * QKV_ALIGNMENT. */
typedef struct qkv_exec {
    size_t size;
    const qkv_context *context; /* NULL: the default one */
    void *workspace;
    size_t workspace_size;
    qkv_parallel_for parallel_for; /* NULL: the calling thread does everything */
    void *pool;                    /* handed to parallel_for */
    int32_t threads;               /* the most workers to use, 1 or more; the plan may use less */
    int32_t reserved;
} qkv_exec;

QKV_API void qkv_exec_init(qkv_exec *exec);

/* shared + threads * worker bytes of a plan; SIZE_MAX if that does not fit. */
QKV_API size_t qkv_plan_workspace(const qkv_plan *plan, int threads);

/* ---- The stages -------------------------------------------------------------------------- */

/* attention: O and LSE from q, k, v by blocks of keys with a running maximum and sum (online
 * softmax: Milakov and Gimelshein 2018; FlashAttention-2, Dao 2023, section 3.1). Reads q, k, v;
 * writes out, and lse if it is there. A key that is not masked spreads a NaN of its V even if its
 * weight is so small that it is zero. context: NULL for the default one. */
QKV_API qkv_status qkv_attention_plan(qkv_plan *plan, const qkv_attention_params *params,
                                      const qkv_context *context);
QKV_API qkv_status qkv_attention(const qkv_attention_params *params, const qkv_tensors *tensors,
                                 const qkv_exec *exec);

/* scores: S as defined above the parameters. Reads q and k; writes every element of scores, -inf
 * where masked. Does not use sinks. */
QKV_API qkv_status qkv_scores_plan(qkv_plan *plan, const qkv_attention_params *params,
                                   const qkv_context *context);
QKV_API qkv_status qkv_scores(const qkv_attention_params *params, const qkv_tensors *tensors,
                              const qkv_exec *exec);

/* softmax: each row of weights = exp(s - LSE) of the row of scores. Uses of the parameters what
 * masks (causal, window, lengths, mask, a bias below -2^127) and the sinks; scale, softcap, ALiBi
 * and finite bias belong to scores. weights may be the same view as scores (in place). Writes every
 * element of weights, 0 where masked, and lse if it is there. */
QKV_API qkv_status qkv_softmax_plan(qkv_plan *plan, const qkv_attention_params *params,
                                    const qkv_context *context);
QKV_API qkv_status qkv_softmax(const qkv_attention_params *params, const qkv_tensors *tensors,
                               const qkv_exec *exec);

/* mix: O = A V. Reads weights and v, writes out. Uses of the parameters what masks: a masked
 * key, and a key whose weight is exactly zero, contributes nothing, whatever its V row holds. */
QKV_API qkv_status qkv_mix_plan(qkv_plan *plan, const qkv_attention_params *params,
                                const qkv_context *context);
QKV_API qkv_status qkv_mix(const qkv_attention_params *params, const qkv_tensors *tensors,
                           const qkv_exec *exec);

/* All of a plan of the four stages above, or of qkv_decode, as a plain call would do it, which
 * makes a plan of its own each time: a short call that comes again and again is faster this way.
 * exec's context is not looked at. */
QKV_API qkv_status qkv_execute(const qkv_plan *plan, const qkv_tensors *tensors,
                               const qkv_exec *exec);

/* Runs the parts [begin, end) of one phase of such a plan. */
QKV_API qkv_status qkv_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase,
                           int64_t begin, int64_t end, const qkv_workspace *workspace);

/* ---- Gradients of the stages ------------------------------------------------------------- */

/* The gradients of a loss with respect to the tensors of the same name in qkv_tensors, which have
 * their shapes. A backward stage reads those of its forward stage's outputs and writes those of
 * its inputs; an output whose data is NULL is not wanted. bias has the full shape [batch, q_heads,
 * q_len, kv_len] even if the bias itself is broadcast (the caller adds up); sinks is [1, 1, 1,
 * q_heads] and summed over the batch and the rows. */
typedef struct qkv_gradients {
    size_t size;
    qkv_tensor q, k, v;
    qkv_tensor scores, weights;
    qkv_tensor out;
    qkv_tensor bias, sinks;
} qkv_gradients;

QKV_API void qkv_gradients_init(qkv_gradients *gradients);

/* attention_backward: dQ, dK, dV, and if wanted the gradients of bias and sinks, from q, k, v, out
 * and lse of the forward call and the gradient of out. With P = exp(S - LSE), recomputed block by
 * block (FlashAttention-2, Dao 2023, section 3.1.2, algorithm 2; dS is the Jacobian of softmax
 * times dP):
 *
 *   dV = P^T dO      dP = dO V^T      D_i = sum_c dO_ic O_ic      dS = P (dP - D)
 *   dQ = scale dS K  dK = scale dS^T Q  dbias = dS  dsink_h = -sum_i exp(sink - LSE_i) D_i
 *
 * with dS times 1 - tanh^2 of the soft-cap on the way to dQ and dK, if there is one. dK and dV are
 * summed over the query heads of a group. An element whose weight is exactly zero, as every masked
 * one, has dS = 0 and contributes nothing, whatever stands in Q, K, V or the gradient of out; rows
 * and keys that nothing sees get zeros. The same bits for any number of threads and division into
 * parts, and for a sequence alone or in any batch. Never q_len x kv_len of memory: the shared
 * workspace holds K twice, V once, at most 8 times Q (32 / kv_heads times, rounded up, if that is
 * less), rows of these padded to 16 numbers, and a dozen numbers of each row.
 *
 * A row's weights must sum up to 1, within 2^-6 + 2^-18 |LSE|. Where they do not, lse comes from
 * another call: the status is then QKV_FAULT_STALE of QKV_ARG_LSE (of qkv_backward_run, in phase
 * 2), and the outputs, which are written by then, have no use. Of an LSE that is 2^18 or more in
 * magnitude, or no number, nothing is said: its own rounding is a part of the weights then, which
 * stay at 1 at most. */
QKV_API qkv_status qkv_attention_backward_plan(qkv_plan *plan, const qkv_attention_params *params,
                                               const qkv_context *context);
QKV_API qkv_status qkv_attention_backward(const qkv_attention_params *params,
                                          const qkv_tensors *tensors,
                                          const qkv_gradients *gradients, const qkv_exec *exec);

/* The same chain, stage by stage.
 *
 * mix_backward: weights' gradient dA = dO V^T (zero where masked) and dV = A^T dO, from weights, v
 * and the gradient of out.
 * softmax_backward: dS = A (dA - sum_j A_ij dA_ij), the Jacobian of softmax times dA, from weights
 * and their gradient, and the gradient of sinks, which needs lse; dS may be the same view as dA.
 * scores_backward: dQ = scale dS K, dK = scale dS^T Q, from q, k and the gradient of scores, which
 * is read where the masks leave it. The gradient of bias is that of the scores, and 0 where masked;
 * the soft-cap's factor comes from q and k. */
QKV_API qkv_status qkv_mix_backward_plan(qkv_plan *plan, const qkv_attention_params *params,
                                         const qkv_context *context);
QKV_API qkv_status qkv_mix_backward(const qkv_attention_params *params, const qkv_tensors *tensors,
                                    const qkv_gradients *gradients, const qkv_exec *exec);
QKV_API qkv_status qkv_softmax_backward_plan(qkv_plan *plan, const qkv_attention_params *params,
                                             const qkv_context *context);
QKV_API qkv_status qkv_softmax_backward(const qkv_attention_params *params,
                                        const qkv_tensors *tensors, const qkv_gradients *gradients,
                                        const qkv_exec *exec);
QKV_API qkv_status qkv_scores_backward_plan(qkv_plan *plan, const qkv_attention_params *params,
                                            const qkv_context *context);
QKV_API qkv_status qkv_scores_backward(const qkv_attention_params *params,
                                       const qkv_tensors *tensors, const qkv_gradients *gradients,
                                       const qkv_exec *exec);

/* Runs the parts [begin, end) of one phase of a plan of the four backward stages above. */
QKV_API qkv_status qkv_backward_run(const qkv_plan *plan, const qkv_tensors *tensors,
                                    const qkv_gradients *gradients, int32_t phase, int64_t begin,
                                    int64_t end, const qkv_workspace *workspace);

/* ---- Projection -------------------------------------------------------------------------- */

/* Weights that serve many calls are better packed. The others are packed in every call: on an Ice
 * Lake, 4096 x 4096, one token then takes 1.3 times as long, 8 tokens 1.7, 512 tokens 1.1. */
typedef enum qkv_weight_layout {
    QKV_W_IN_OUT, /* [d_model, width], as in Q = X W: element (in, out) at in*stride[2] + out */
    QKV_W_OUT_IN, /* [width, d_model], as PyTorch stores it: (in, out) at out*stride[2] + in */
    QKV_W_PACKED, /* made by qkv_project_pack; data aligned to QKV_ALIGNMENT */
    QKV_W_COUNT
} qkv_weight_layout;

/* Q is [batch, q_heads, tokens, head_dim]; its width q_heads * head_dim. K likewise with
 * kv_heads; V with kv_heads and v_dim. q_heads = 0 leaves Q out, kv_heads = 0 leaves out K and
 * V. Columns of W and biases are in the order (head, dim). */
typedef struct qkv_project_params {
    size_t size;
    uint64_t flags; /* 0, or QKV_PROJECT_ACCUMULATE of project_backward alone */
    int64_t batch;
    int64_t tokens;
    int64_t d_model; /* 1 or more */
    int64_t q_heads;
    int64_t kv_heads;
    int64_t head_dim;
    int64_t v_dim;  /* 0: as head_dim */
    int32_t layout; /* a qkv_weight_layout, of all three matrices */
    int32_t reserved;
} qkv_project_params;

QKV_API void qkv_project_params_init(qkv_project_params *params);

/* x [batch, 1, tokens, d_model] (stride[1] is not used); w as the layout says (stride[2] is the
 * row stride); biases [width] contiguous, absent if data is NULL; outputs as above, any strides:
 * a [batch, tokens, heads * dim] buffer is qkv_tensor_bshd, a [batch, heads, tokens, dim] one
 * qkv_tensor_bhsd. Entries of few tokens each take the time of one entry with all of them if x's
 * rows go on at the same distance: tokens is 1, or stride[0] is tokens * stride[2]. */
typedef struct qkv_project_tensors {
    size_t size;
    qkv_tensor x;
    qkv_tensor wq, wk, wv;
    qkv_tensor bq, bk, bv;
    qkv_tensor q, k, v;
} qkv_project_tensors;

QKV_API void qkv_project_tensors_init(qkv_project_tensors *tensors);

/* Which matrix of a projection is meant. */
typedef enum qkv_which { QKV_WHICH_Q, QKV_WHICH_K, QKV_WHICH_V, QKV_WHICH_COUNT } qkv_which;

/* project: Q = X W^Q + b^Q, K = X W^K + b^K, V = X W^V + b^V. Each element is
 * summed in stretches of 128 inputs: one ascending chain of fused multiply-adds (in the scalar room
 * multiplications and additions) from zero each, joined from left to right. The bias is added last.
 */
QKV_API qkv_status qkv_project_plan(qkv_plan *plan, const qkv_project_params *params,
                                    const qkv_context *context);
QKV_API qkv_status qkv_project_run(const qkv_plan *plan, const qkv_project_tensors *tensors,
                                   int32_t phase, int64_t begin, int64_t end,
                                   const qkv_workspace *workspace);
QKV_API qkv_status qkv_project(const qkv_project_params *params, const qkv_project_tensors *tensors,
                               const qkv_exec *exec);

/* The same with a plan that was made before; exec's context is not looked at. */
QKV_API qkv_status qkv_project_execute(const qkv_plan *plan, const qkv_project_tensors *tensors,
                                       const qkv_exec *exec);

/* Weights packed ahead of time: the bytes that one matrix takes (0 for a fault, or for a matrix
 * that the parameters leave out), and the packing itself. params->layout says how w is stored
 * (IN_OUT or OUT_IN); batch and tokens are not looked at. Run later with params->layout =
 * QKV_W_PACKED and qkv_tensor_packed(packed) in w's place. The result begins with a header of 64
 * bytes (layout, dtype, shape, version) and may be stored and used in every room. */
QKV_API size_t qkv_project_pack_size(const qkv_project_params *params, int which,
                                     const qkv_context *context);
QKV_API qkv_status qkv_project_pack(const qkv_project_params *params, int which,
                                    const qkv_tensor *w, void *packed, size_t packed_size,
                                    const qkv_context *context);

/* The gradients of a projection: those of q, k and v are read, the others written where data is not
 * NULL. Shapes and layouts as in qkv_project_tensors: a matrix's gradient is stored as the matrix
 * is (params->layout, which may not be QKV_W_PACKED). */
typedef struct qkv_project_gradients {
    size_t size;
    qkv_tensor q, k, v;
    qkv_tensor x;
    qkv_tensor wq, wk, wv;
    qkv_tensor bq, bk, bv;
} qkv_project_gradients;

QKV_API void qkv_project_gradients_init(qkv_project_gradients *gradients);

/* project_backward: dX = dQ W^Q^T + dK W^K^T + dV W^V^T; dW^Q = X^T dQ and db^Q = sum over tokens
 * of dQ, likewise for K and V: the chain rule for Q = X W^Q + b^Q, with the batch's tokens as one
 * long run. Reads x, the matrices, and the gradients of q, k and v, each only if an output that
 * needs it is wanted (x: a matrix's gradient; the matrices: that of x), and nothing else of
 * tensors. With QKV_PROJECT_ACCUMULATE in params->flags every output is added to what stands there,
 * in one addition; project itself refuses the flag.
 *
 * Each element is summed in stretches of 128 as project's are, in dX over the columns of Q, then of
 * K, then of V, where stretches begin anew, in dW and db over the tokens: the same bits for any
 * number of threads, strides, outputs wanted, and either layout. */
#define QKV_PROJECT_ACCUMULATE ((uint64_t)1)
QKV_API qkv_status qkv_project_backward_plan(qkv_plan *plan, const qkv_project_params *params,
                                             const qkv_context *context);
QKV_API qkv_status qkv_project_backward_run(const qkv_plan *plan,
                                            const qkv_project_tensors *tensors,
                                            const qkv_project_gradients *gradients, int32_t phase,
                                            int64_t begin, int64_t end,
                                            const qkv_workspace *workspace);
QKV_API qkv_status qkv_project_backward(const qkv_project_params *params,
                                        const qkv_project_tensors *tensors,
                                        const qkv_project_gradients *gradients,
                                        const qkv_exec *exec);

/* ---- Loss and descent -------------------------------------------------------------------- */

/* What is to be made small: the mean over all elements of (prediction - target)^2, or the mean over
 * the counted rows of -log softmax(prediction)[label]. A label of -1 leaves its row out. The mean
 * of nothing (no rows, or every row left out) is 0, and the gradient zeros. */
typedef enum qkv_loss_kind {
    QKV_LOSS_SQUARED,
    QKV_LOSS_CROSS_ENTROPY,
    QKV_LOSS_COUNT
} qkv_loss_kind;

typedef struct qkv_loss_params {
    size_t size;
    uint64_t flags;        /* 0 */
    int64_t rows, columns; /* columns: 1 or more */
    int32_t kind;          /* a qkv_loss_kind */
    int32_t reserved;
} qkv_loss_params;

QKV_API void qkv_loss_params_init(qkv_loss_params *params);

/* prediction, target and gradient are [1, 1, rows, columns]: stride[2] is the row stride. A label
 * is -1 or a column; any other is refused as out of range before anything is written. */
typedef struct qkv_loss_tensors {
    size_t size;
    qkv_tensor prediction;
    qkv_tensor target;     /* of QKV_LOSS_SQUARED */
    const int32_t *labels; /* [rows], of QKV_LOSS_CROSS_ENTROPY */
    qkv_tensor gradient;   /* of the loss with respect to prediction; optional, may be prediction,
                              unless that is needed again: attention_backward reads its out */
    float *loss;           /* one number */
} qkv_loss_tensors;

QKV_API void qkv_loss_tensors_init(qkv_loss_tensors *tensors);

/* loss: writes loss, and gradient if it is there:
 *
 *   squared         2 (prediction - target) / (rows * columns)
 *   cross-entropy   (softmax(prediction) - onehot(label)) / counted rows;  0 where left out
 *
 * softmax as in the stage of that name, but sums, and the loss until it is rounded at the end, are
 * in double precision and joined in an order that depends on the shape alone. A logit of -inf has
 * the probability zero (as a label's it makes the loss +inf); a NaN or +inf anywhere in a counted
 * row, or nothing but -inf, makes the loss and that row's gradient NaN. Rows left out are not read.
 */
QKV_API qkv_status qkv_loss_plan(qkv_plan *plan, const qkv_loss_params *params,
                                 const qkv_context *context);
QKV_API qkv_status qkv_loss_run(const qkv_plan *plan, const qkv_loss_tensors *tensors,
                                int32_t phase, int64_t begin, int64_t end,
                                const qkv_workspace *workspace);
QKV_API qkv_status qkv_loss(const qkv_loss_params *params, const qkv_loss_tensors *tensors,
                            const qkv_exec *exec);

/* How weights descend, with g = gradient_scale * gradient:
 *
 *   QKV_DESCENT_SGD    g += weight_decay * W;  M = momentum * M + g;  W -= rate * M.
 *                      With momentum 0 and weight_decay 0 exactly W <- W - rate g; without momentum
 *                      M is not needed.
 *   QKV_DESCENT_ADAMW  W -= rate * weight_decay * W;  M = beta1 M + (1 - beta1) g;
 *                      V = beta2 V + (1 - beta2) g^2;
 *                      W -= rate * (M / (1 - beta1^step)) / (sqrt(V / (1 - beta2^step)) + epsilon)
 *                      (Loshchilov and Hutter 2019, algorithm 2)
 *
 * W - rate g is one fused multiply-add, rounded once; in the scalar room a multiplication and a
 * subtraction. At step 1, M and V are taken for 0 and their memory is not read. A NaN or infinity
 * in the gradient goes into the weights like any number: qkv_sum_squares tells, since its sum is
 * not finite then. What the rule does not use is not looked at. */
typedef enum qkv_descent_rule {
    QKV_DESCENT_SGD,
    QKV_DESCENT_ADAMW,
    QKV_DESCENT_COUNT
} qkv_descent_rule;

typedef struct qkv_descent_params {
    size_t size;
    uint64_t flags;       /* 0 */
    int64_t count;        /* numbers */
    int64_t step;         /* from 1 */
    int32_t rule;         /* a qkv_descent_rule */
    float rate;           /* a finite number, 0 or more */
    float gradient_scale; /* 1, or what clipping by the global norm asks for; finite, 0 or more */
    float momentum;       /* in [0, 1) */
    float weight_decay;   /* finite, 0 or more */
    float beta1, beta2;   /* in [0, 1) */
    float epsilon;        /* a positive finite number */
} qkv_descent_params;

/* step 1, rate 1e-3, gradient_scale 1, momentum and weight_decay 0, beta1 0.9, beta2 0.999, epsilon
 * 1e-8 */
QKV_API void qkv_descent_params_init(qkv_descent_params *params);

/* Arrays of count floats, aligned as floats; weights, and the running means where the rule has
 * them, are changed in place, in one pass over memory. None may overlap another. */
typedef struct qkv_descent_arrays {
    size_t size;
    float *weights;
    const float *gradient;
    float *mean;   /* M */
    float *square; /* V */
} qkv_descent_arrays;

QKV_API void qkv_descent_arrays_init(qkv_descent_arrays *arrays);

QKV_API qkv_status qkv_descent_plan(qkv_plan *plan, const qkv_descent_params *params,
                                    const qkv_context *context);
QKV_API qkv_status qkv_descent_run(const qkv_plan *plan, const qkv_descent_arrays *arrays,
                                   int32_t phase, int64_t begin, int64_t end,
                                   const qkv_workspace *workspace);
QKV_API qkv_status qkv_descent(const qkv_descent_params *params, const qkv_descent_arrays *arrays,
                               const qkv_exec *exec);

/* Clipping by the global norm (Pascanu, Mikolov and Bengio 2013): *sum += the squares of x[count],
 * in double precision and a fixed order; then the gradient_scale that keeps sqrt(sum) at or below
 * max_norm: 1 if it is there already; NaN, which qkv_descent refuses, where the sum is not a finite
 * number or max_norm is negative or NaN. */
QKV_API qkv_status qkv_sum_squares(double *sum, const float *x, int64_t count,
                                   const qkv_context *context);
QKV_API float qkv_clip_scale(double sum, float max_norm);

#ifdef __cplusplus
}
#endif

#endif
