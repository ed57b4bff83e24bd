/* SPDX-License-Identifier: Apache-2.0 */
/* What cache.h promises, said once more about lists of tokens. */
#include "cache_model.h"

#include <string.h>

void faults_add(struct faults *f, bool there, qkv_arg arg, qkv_fault fault) {
    if (there && f->count < FAULTS_MOST)
        f->status[f->count++] = (qkv_status)arg << 8 | (qkv_status)fault;
}

struct verdict faults_check(const struct faults *f, qkv_status status, const char *call) {
    if (status == QKV_OK && f->count == 0)
        return verdict_ok();
    for (int i = 0; i < f->count; i++)
        if (f->status[i] == status)
            return verdict_ok();
    struct verdict verdict = verdict_fail("%s: %s", call, qkv_status_string(status));
    for (int i = 0; i < f->count; i++)
        verdict_add(&verdict, "foretold: %s", qkv_status_string(f->status[i]));
    return verdict;
}

static int64_t page_of(const struct model *m, int64_t sequence, int64_t i) {
    const int64_t entry = sequence * m->c.cache.sequence_pages + i;
    return m->c.cache.table ? m->c.cache.table[entry] : entry;
}

int64_t model_pages_for(const struct model *m, int64_t tokens) {
    return (tokens + m->c.cache.page_tokens - 1) / m->c.cache.page_tokens;
}

int64_t model_pages(const struct model *m, int64_t sequence) {
    return model_pages_for(m, m->length[sequence]);
}

int model_holders(const struct model *m, int64_t page) {
    int holders = 0;
    for (int64_t s = 0; s < m->c.cache.sequences; s++)
        for (int64_t i = 0; i < model_pages(m, s); i++)
            holders += page_of(m, s, i) == page;
    return holders;
}

void faults_of_pages(struct faults *f, const struct model *m, int64_t sequence, int64_t first,
                     int64_t end, bool *taken) {
    bool outside = false, shared = false;
    for (int64_t i = first; i < end; i++) {
        const int64_t page = page_of(m, sequence, i);
        if (page < 0 || page >= m->c.cache.pages) {
            outside = true;
            continue;
        }
        shared |= taken[page] || model_holders(m, page) > 0;
        taken[page] = true;
    }
    faults_add(f, outside, QKV_ARG_TABLE, QKV_FAULT_RANGE);
    faults_add(f, shared, QKV_ARG_TABLE, QKV_FAULT_SHARED);
}

struct verdict model_check(const struct model *m, const qkv_context *context, bool all) {
    struct verdict verdict = verdict_ok();
    for (int64_t s = 0; s < m->c.cache.sequences; s++)
        if (m->c.cache.lengths[s] != m->length[s])
            return verdict_fail("sequence %lld has %d tokens, not %lld", (long long)s,
                                m->c.cache.lengths[s], (long long)m->length[s]);
    for (int64_t page = 0; page < m->c.cache.pages; page++)
        if (m->c.cache.holders[page] != model_holders(m, page))
            return verdict_fail("page %lld has %d holders, not %d", (long long)page,
                                m->c.cache.holders[page], model_holders(m, page));
    for (int64_t s = 0; s < m->c.cache.sequences && all && verdict.ok; s++)
        verdict = cache_check_tokens(&m->c, context, s, m->held[s], m->length[s]);
    return verdict;
}
