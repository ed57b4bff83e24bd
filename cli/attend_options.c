/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the options of qkv attend go together: what can be said before any file is read. */
#include <inttypes.h>
#include <string.h>

#include "attend.h"
#include "complain.h"
#include "rooms.h"

/* The two ways to say what to attend to. */
struct input {
    const char *name;
    size_t offset;
    bool needed;
};

#define INPUT(name, field, needed) \
    { (name), offsetof(struct attend_options, field), (needed) }

static const struct input direct[] = {INPUT("--q", q, true), INPUT("--k", k, true),
                                      INPUT("--v", v, true)};

static const struct input projected[] = {
    INPUT("--x", x, true),    INPUT("--wq", wq, true),  INPUT("--wk", wk, true),
    INPUT("--wv", wv, true),  INPUT("--bq", bq, false), INPUT("--bk", bk, false),
    INPUT("--bv", bv, false),
};

enum {
    DIRECT = sizeof direct / sizeof direct[0],
    PROJECTED = sizeof projected / sizeof projected[0],
};

static const char *text_at(const struct attend_options *o, size_t offset) {
    return *(const char *const *)((const char *)o + offset);
}

/* The first of the inputs that is given, or NULL. */
static const char *first_given(const struct attend_options *o, const struct input *in, int count) {
    for (int i = 0; i < count; i++) {
        if (text_at(o, in[i].offset)) {
            return in[i].name;
        }
    }
    return NULL;
}

static int check_complete(const struct attend_options *o, const struct input *in, int count,
                          const char *given) {
    for (int i = 0; i < count; i++) {
        if (in[i].needed && !text_at(o, in[i].offset)) {
            return complain(USAGE, in[i].name, "is missing; it goes with %s", given);
        }
    }
    return FINE;
}

static int check_inputs(const struct attend_options *o) {
    const char *q = first_given(o, direct, DIRECT), *x = first_given(o, projected, PROJECTED);
    if (q && x) {
        return complain(USAGE, x, "cannot be given together with %s", q);
    }
    if (!q && !x) {
        return complain(USAGE, "--q",
                        "is missing: give --q, --k and --v, or --x, --wq, --wk "
                        "and --wv");
    }
    if (q && o->w_layout.given) {
        return complain(USAGE, "--w-layout", "goes with --x, not with %s", q);
    }
    return q ? check_complete(o, direct, DIRECT, q) : check_complete(o, projected, PROJECTED, x);
}

static int check_outputs(const struct attend_options *o) {
    const char *const names[] = {"--out", "--lse", "--weights"};
    const char *const paths[] = {o->out, o->lse, o->weights};
    if (!o->out && !o->lse && !o->weights && !o->show && !o->cache_dtype.given) {
        return complain(USAGE, "--out",
                        "is missing: nothing to do without --out, --lse, --weights, "
                        "--show or --cache-dtype");
    }
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < i; j++) {
            if (paths[i] && paths[j] && strcmp(paths[i], paths[j]) == 0) {
                return complain(USAGE, names[i], "is the same file as %s", names[j]);
            }
        }
    }
    return FINE;
}

/* Cumulative lengths begin with 0 and never decrease. */
static int check_cumulative(const char *name, const struct option_list *cu) {
    if (cu->values && cu->count < 2) {
        return complain(USAGE, name, "needs at least two numbers: 0 and where the sequence ends");
    }
    if (cu->values && cu->values[0] != 0) {
        return complain(USAGE, name, "begins with %d, not with 0", cu->values[0]);
    }
    for (int i = 1; i < cu->count; i++) {
        if (cu->values[i] < cu->values[i - 1]) {
            return complain(USAGE, name, "decreases from %d to %d", cu->values[i - 1],
                            cu->values[i]);
        }
    }
    return FINE;
}

static int check_conflict(const char *name, const struct option_list *list, const char *other_name,
                          const struct option_list *other) {
    if (list->values && other->values) {
        return complain(USAGE, name, "cannot be given together with %s", other_name);
    }
    return FINE;
}

static int check_lengths(const struct attend_options *o) {
    int status = check_conflict("--cu-q", &o->cu_q, "--q-lens", &o->q_lens);
    if (!status) {
        status = check_conflict("--cu-kv", &o->cu_kv, "--kv-lens", &o->kv_lens);
    }
    if (!status) {
        status = check_cumulative("--cu-q", &o->cu_q);
    }
    if (!status) {
        status = check_cumulative("--cu-kv", &o->cu_kv);
    }
    if (!status && o->cu_q.values && o->cu_kv.values && o->cu_q.count != o->cu_kv.count) {
        status = complain(USAGE, "--cu-kv", "has %d numbers, but --cu-q has %d", o->cu_kv.count,
                          o->cu_q.count);
    }
    return status;
}

static int check_cache(const struct attend_options *o) {
    const char *more = o->page_size.given          ? "--page-size"
                       : o->cache_v_dtype.given    ? "--cache-v-dtype"
                       : o->cache_arithmetic.given ? "--cache-arithmetic"
                                                   : NULL;
    if (more && !o->cache_dtype.given) {
        return complain(USAGE, more, "goes with --cache-dtype");
    }
    if (o->page_size.value % 16) {
        return complain(USAGE, "--page-size", "%" PRId64 " is not a multiple of 16",
                        o->page_size.value);
    }
    return FINE;
}

int attend_check_options(const struct attend_options *o) {
    int status = check_inputs(o);
    if (!status) {
        status = check_outputs(o);
    }
    if (!status) {
        status = check_lengths(o);
    }
    if (!status) {
        status = check_cache(o);
    }
    if (!status && o->window.values && o->window.count != 2) {
        status = complain(USAGE, "--window", "needs two numbers, such as 128,0");
    }
    return status ? status : room_check(o->isa);
}
