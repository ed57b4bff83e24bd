/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole decode loop over a paged key/value cache: a prompt is prefilled, tokens are decoded one
 * by one, a draft is looked at and what the model rejects of it is forgotten, and a second sequence
 * begins with the pages of the first. The "model" is one layer of attention whose random weights
 * the program makes itself; what it says makes no sense, but everything around it is what an
 * inference program does, on the threads of pool.h.
 *
 * The program checks two promises with memcmp: tokens decoded one by one leave the bits that they
 * have in one chunk, and a sequence that shares its beginning leaves those of one that does not.
 */
#include <qkv/cache.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

enum {
    /* The model: a token's vector, its query heads, and key/value heads that two of them share. */
    WORDS = 50,
    Q_HEADS = 8,
    KV_HEADS = 4,
    DIM = 32,
    WIDTH = Q_HEADS * DIM,
    KV_WIDTH = KV_HEADS * DIM,

    /* The cache: 16 tokens a page, and fewer pages than all sequences would fill. */
    PAGE = 16,
    SEQUENCES = 4,
    SEQUENCE_PAGES = 16,
    CAPACITY = PAGE * SEQUENCE_PAGES,
    PAGES = 40,

    PROMPT = 70,
    DECODED = 40,
    DRAFT = 5,
    SPECULATED = 60,
    SUFFIX = 30,
};

static float embedding[WORDS][WIDTH];
static float wq[WIDTH][WIDTH], wk[WIDTH][KV_WIDTH], wv[WIDTH][KV_WIDTH];
static float rope_cos[CAPACITY][DIM / 2], rope_sin[CAPACITY][DIM / 2];

static int32_t table[SEQUENCES][SEQUENCE_PAGES], lengths[SEQUENCES], holders[PAGES];
static qkv_cache cache;
static qkv_exec exec;

/* What each sequence has been told, and what the attention of each of its tokens came to: kept for
 * the comparisons at the end. */
static int words[SEQUENCES][CAPACITY];
static float seen[SEQUENCES][CAPACITY][WIDTH];

static void must(qkv_status status, const char *what) {
    if (status == QKV_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, qkv_status_string(status));
    exit(EXIT_FAILURE);
}

/* ---- Once, when the program starts ---- */

/* -1 to 1. */
static float uniform(void) {
    static uint32_t state = 7;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-23f - 1.0f;
}

static void fill(float *data, size_t count, float scale) {
    for (size_t i = 0; i < count; i++)
        data[i] = scale * uniform();
}

static void make_model(void) {
    fill(&embedding[0][0], sizeof(embedding) / sizeof(float), 1.0f);
    fill(&wq[0][0], sizeof(wq) / sizeof(float), 0.25f);
    fill(&wk[0][0], sizeof(wk) / sizeof(float), 0.25f);
    fill(&wv[0][0], sizeof(wv) / sizeof(float), 0.25f);
    must(qkv_rope_tables(&rope_cos[0][0], &rope_sin[0][0], 0, CAPACITY, DIM, 10000.0), "tables");
}

/* The library says how much memory the pages take; the memory is ours, and needs no preparation. */
static void make_cache(void) {
    qkv_cache_init(&cache);
    cache.kv_heads = KV_HEADS;
    cache.head_dim = DIM;
    cache.page_tokens = PAGE;
    cache.pages = PAGES;
    cache.sequences = SEQUENCES;
    cache.sequence_pages = SEQUENCE_PAGES;
    cache.k_dtype = QKV_BF16;
    cache.v_dtype = QKV_BF16;
    cache.memory = aligned_alloc(QKV_ALIGNMENT, qkv_cache_memory_size(&cache));
    cache.table = &table[0][0];
    cache.lengths = lengths;
    cache.holders = holders;
    must(qkv_cache_check(&cache), "the cache");
}

/* ---- The parameters of a step: `count` tokens of one sequence ---- */

static qkv_project_params project_params(int count) {
    qkv_project_params params;
    qkv_project_params_init(&params);
    params.batch = 1;
    params.tokens = count;
    params.d_model = WIDTH;
    params.q_heads = Q_HEADS;
    params.kv_heads = KV_HEADS;
    params.head_dim = DIM;
    params.layout = QKV_W_IN_OUT;
    return params;
}

static qkv_rope rope(void) {
    return (qkv_rope){.pairs = QKV_ROPE_HALF,
                      .theta = 10000.0,
                      .cos = &rope_cos[0][0],
                      .sin = &rope_sin[0][0],
                      .table_rows = CAPACITY};
}

/* kv_len is the most that the sequence may hold: a plan for it serves every step. Query i of the
 * chunk stands at the place of its own key, since those of the chunk are the last. */
static qkv_attention_params decode_params(int count) {
    qkv_attention_params params;
    qkv_attention_params_init(&params);
    params.batch = 1;
    params.q_heads = Q_HEADS;
    params.kv_heads = KV_HEADS;
    params.q_len = count;
    params.kv_len = CAPACITY;
    params.head_dim = DIM;
    params.flags = QKV_FLAG_CAUSAL;
    return params;
}

/* One workspace for every call: the most that the longest step asks for. Append and rotation need
 * none that is larger. */
static void make_workspace(struct pool *pool, int threads) {
    const qkv_project_params project = project_params(CAPACITY);
    const qkv_attention_params decode = decode_params(CAPACITY);
    qkv_plan plan;
    qkv_exec_init(&exec);
    exec.parallel_for = pool ? pool_run : NULL;
    exec.pool = pool;
    exec.threads = pool ? threads : 1;
    must(qkv_project_plan(&plan, &project, exec.context), "the projection's plan");
    exec.workspace_size = qkv_plan_workspace(&plan, exec.threads);
    must(qkv_decode_plan(&plan, &decode, &cache, NULL, exec.context), "decode's plan");
    if (qkv_plan_workspace(&plan, exec.threads) > exec.workspace_size)
        exec.workspace_size = qkv_plan_workspace(&plan, exec.threads);
    exec.workspace = aligned_alloc(QKV_ALIGNMENT, exec.workspace_size);
}

/* ---- A step ---- */

/* Pages are the caller's to give: those that nobody holds are free. */
static void give_pages(int sequence, int tokens) {
    const int have = (lengths[sequence] + PAGE - 1) / PAGE;
    const int need = (lengths[sequence] + tokens + PAGE - 1) / PAGE;
    int page = 0;
    for (int i = have; i < need; i++, page++) {
        while (page < PAGES && holders[page])
            page++;
        if (i >= SEQUENCE_PAGES || page == PAGES) {
            fprintf(stderr, "the cache is full\n");
            exit(EXIT_FAILURE);
        }
        table[sequence][i] = page;
    }
}

/* The sequence is told `count` words; what attention makes of each goes to `seen`. */
static void tell(int sequence, const int *told, int count) {
    static float x[CAPACITY][WIDTH], q[CAPACITY][WIDTH];
    static float k[CAPACITY][KV_WIDTH], v[CAPACITY][KV_WIDTH];
    const int32_t which = sequence, first = lengths[sequence];
    for (int i = 0; i < count; i++) {
        memcpy(x[i], embedding[told[i]], sizeof(x[i]));
        words[sequence][first + i] = told[i];
    }

    /* Q, K and V of the new tokens; the heads of a token stand side by side. */
    const qkv_project_params project = project_params(count);
    qkv_project_tensors p;
    qkv_project_tensors_init(&p);
    p.x = qkv_tensor_bhsd(x, 1, count, WIDTH);
    p.wq = qkv_tensor_bhsd(wq, 1, WIDTH, WIDTH);
    p.wk = qkv_tensor_bhsd(wk, 1, WIDTH, KV_WIDTH);
    p.wv = qkv_tensor_bhsd(wv, 1, WIDTH, KV_WIDTH);
    p.q = qkv_tensor_bshd(q, Q_HEADS, count, DIM);
    p.k = qkv_tensor_bshd(k, KV_HEADS, count, DIM);
    p.v = qkv_tensor_bshd(v, KV_HEADS, count, DIM);
    must(qkv_project(&project, &p, &exec), "project");

    /* K and V into the cache: K is turned to its position, and both are rounded, on the way. */
    qkv_tensors t;
    qkv_tensors_init(&t);
    t.q = p.q;
    t.k = p.k;
    t.v = p.v;
    qkv_append_params append;
    qkv_append_params_init(&append);
    append.batch = 1;
    append.tokens = count;
    append.sequences = &which;
    append.rope = rope();
    give_pages(sequence, count);
    must(qkv_append(&append, &cache, &t, &exec), "append");

    /* Q is turned in place. */
    qkv_rotate_params rotate;
    qkv_rotate_params_init(&rotate);
    rotate.batch = 1;
    rotate.heads = Q_HEADS;
    rotate.tokens = count;
    rotate.head_dim = DIM;
    rotate.first = &first;
    rotate.rope = rope();
    t.out = t.q;
    must(qkv_rotate(&rotate, &t, &exec), "rotate");

    const qkv_attention_params decode = decode_params(count);
    t.out = qkv_tensor_bshd(seen[sequence][first], Q_HEADS, count, DIM);
    must(qkv_decode(&decode, &t, &cache, &which, &exec), "decode");
}

/* What the model says after the token at `place`: the word whose vector points most along what it
 * has seen and, so that it does not repeat itself, the token's own vector moved by one. */
static int answer(int sequence, int place) {
    const float *own = embedding[words[sequence][place]], *more = seen[sequence][place];
    int best = 0;
    float most = 0.0f;
    for (int word = 0; word < WORDS; word++) {
        float dot = 0.0f;
        for (int i = 0; i < WIDTH; i++)
            dot += embedding[word][i] * (own[(i + 1) % WIDTH] + more[i]);
        if (word == 0 || dot > most) {
            best = word;
            most = dot;
        }
    }
    return best;
}

/* ---- What the program shows ---- */

static void decode_tokens(int sequence, int count) {
    for (int i = 0; i < count; i++) {
        const int word = answer(sequence, lengths[sequence] - 1);
        tell(sequence, &word, 1);
    }
}

/* The draft: the word that the model has said, and a guess at what it will say next, which is what
 * followed when it last said that word (prompt lookup: it costs nothing, and is right whenever a
 * text repeats itself). */
static void guess(int sequence, int draft[DRAFT]) {
    const int *told = words[sequence], count = lengths[sequence];
    int place = count - 1;
    draft[0] = answer(sequence, count - 1);
    while (place > 0 && told[place] != draft[0])
        place--;
    for (int i = 1; i < DRAFT; i++)
        draft[i] = place + i < count ? told[place + i] : draft[i - 1];
}

/* The model looks at the whole draft in one step. The first word that it would not have said, and
 * all after it, are forgotten. */
static int speculate(int sequence) {
    const int before = lengths[sequence];
    int draft[DRAFT], accepted = 1;
    guess(sequence, draft);
    tell(sequence, draft, DRAFT);
    while (accepted < DRAFT && draft[accepted] == answer(sequence, before + accepted - 1))
        accepted++;
    must(qkv_cache_truncate(&cache, sequence, before + accepted), "truncate");
    return accepted;
}

static int pages_held(void) {
    int held = 0;
    for (int i = 0; i < PAGES; i++)
        held += holders[i] > 0;
    return held;
}

/* Full pages are shared; a last one that is not full is copied, to a page that we give. */
static void share(int to, int from, int tokens) {
    if (tokens % PAGE) {
        int page = 0;
        while (page < PAGES - 1 && holders[page])
            page++;
        table[to][tokens / PAGE] = page;
    }
    must(qkv_cache_share(&cache, to, from, tokens), "share");
    memcpy(words[to], words[from], (size_t)tokens * sizeof(int));
    memcpy(seen[to], seen[from], (size_t)tokens * sizeof(seen[0][0]));
}

/* Have two sequences seen the same, to the bit? */
static int same(int a, int b) {
    return lengths[a] == lengths[b] &&
           memcmp(seen[a], seen[b], (size_t)lengths[a] * sizeof(seen[0][0])) == 0;
}

int main(void) {
    const int cpus = pool_cpus();
    struct pool *pool = pool_open(cpus);
    int prompt[PROMPT], suffix[SUFFIX];
    make_model();
    make_cache();
    make_workspace(pool, cpus);
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = i * i % WORDS;
    for (int i = 0; i < SUFFIX; i++)
        suffix[i] = 7 * i % WORDS;

    tell(0, prompt, PROMPT);
    printf("prefill: %d tokens in one chunk, %d pages of %d tokens\n", lengths[0], pages_held(),
           PAGE);
    decode_tokens(0, DECODED);
    printf("decode:  %d tokens one by one, %d in all, %d pages\n", DECODED, lengths[0],
           pages_held());
    int drafts = 0, accepted = 0;
    for (; accepted < SPECULATED; drafts++)
        accepted += speculate(0);
    printf("draft:   %d drafts of %d tokens: %d accepted, %d forgotten, %d pages\n", drafts, DRAFT,
           accepted, drafts * DRAFT - accepted, pages_held());

    /* The same words, all in one chunk. */
    tell(1, words[0], lengths[0]);
    const int same_in_a_chunk = same(0, 1);
    printf("chunk:   %d tokens again in one chunk: %s bits\n", lengths[1],
           same_in_a_chunk ? "the same" : "OTHER");

    /* Sequence 2 begins with the prompt of sequence 0, sequence 3 is told it; both then hear the
     * same. */
    int before = pages_held();
    share(2, 0, PROMPT);
    printf("share:   %d tokens of the prompt: %d page more, %d pages held by both\n", PROMPT,
           pages_held() - before, PROMPT / PAGE);
    tell(2, suffix, SUFFIX);
    decode_tokens(2, DECODED);
    before = pages_held();
    tell(3, prompt, PROMPT);
    printf("alone:   %d tokens of the prompt: %d pages more\n", PROMPT, pages_held() - before);
    tell(3, suffix, SUFFIX);
    decode_tokens(3, DECODED);
    const int same_when_shared = same(2, 3);
    printf("both:    %d tokens of a prompt that is shared or not: %s bits\n", lengths[2],
           same_when_shared ? "the same" : "OTHER");

    free(exec.workspace);
    free(cache.memory);
    pool_close(pool);
    return same_in_a_chunk && same_when_shared ? EXIT_SUCCESS : EXIT_FAILURE;
}
