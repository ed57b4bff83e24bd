/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the comparison needs in C, called from Python: qkv through its public header, a plain user
 * program over somebody's sgemm, and the machine's FMA peak. Objects are made once per shape;
 * their _run functions are what is timed.
 */
#ifndef QKV_PEERS_NATIVE_H
#define QKV_PEERS_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* A best of a few runs of about a third of a millisecond. vector_bytes: 16, 32 or 64. */
double native_peak(int vector_bytes);

/* Of the widest vectors that this file was compiled for. */
int native_vector_bytes(void);

/* What a call costs that does nothing. */
void native_nothing(void *argument);

/* One attention call; q [q_heads, q_len, dim], k and v [kv_heads, kv_len, dim], contiguous. */
struct native_attention {
    int64_t q_heads, kv_heads, q_len, kv_len, dim;
    int64_t causal;
    const float *q, *k, *v;
    float *out;
    int64_t threads;
    int64_t exp; /* a qkv_exp: by which qkv takes exponentials */
};

/* Such a call, which also leaves lse [q_heads, q_len], and its gradients: d_out and d_q as out,
 * d_k and d_v as k. */
struct native_learning {
    struct native_attention forward;
    float *lse;
    const float *d_out;
    float *d_q, *d_k, *d_v;
};

/* out [tokens, width] = x [tokens, d_model] w; w [matrices][d_model, width / matrices]. */
struct native_project {
    int64_t tokens, d_model, width;
    int64_t matrices; /* 1, or 3: Q, K and V side by side */
    int64_t head_dim;
    const float *x;
    const float *w[3];
    float *out;
    int64_t threads;
};

/* A step of decoding: the last of kv_len tokens is appended to a cache, and one query a head
 * attends to all of them. q and out [q_heads, 1, dim], k and v as above. */
struct native_decode {
    int64_t q_heads, kv_heads, kv_len, dim;
    int64_t dtype;  /* of K and V in the cache: a qkv_dtype */
    int64_t narrow; /* in narrow arithmetic */
    const float *q, *k, *v;
    float *out;
    void *memory; /* native_qkv_cache_size() bytes */
    int64_t threads;
};
size_t native_qkv_cache_size(const struct native_decode *call);

/* qkv. room is the name of an instruction set, or NULL for the best. NULL, after a sentence on
 * standard error, if it cannot be made. */
struct native_qkv;
struct native_qkv *native_qkv_attention(const struct native_attention *call, const char *room);
struct native_qkv *native_qkv_learning(const struct native_learning *call, const char *room);
struct native_qkv *native_qkv_project(const struct native_project *call, const char *room);
struct native_qkv *native_qkv_decode(const struct native_decode *call, const char *room);
/* The same without the appending. */
struct native_qkv *native_qkv_attend(const struct native_decode *call, const char *room);
int native_qkv_run(struct native_qkv *qkv);

/* The variant of narrow arithmetic for a dtype, or NULL. */
const char *native_qkv_narrow(int64_t dtype);

/* The instruction set that this name leads to; NULL if there is no such in this build. */
const char *native_qkv_room(const char *room);

/* The user program. kind says whose type sgemm really has. */
enum { NATIVE_CBLAS, NATIVE_DNNL };
typedef void native_sgemm(void);
struct native_by_hand;
struct native_by_hand *native_by_hand(const struct native_attention *call, native_sgemm *sgemm,
                                      int kind);
int native_by_hand_run(struct native_by_hand *program);

#endif
