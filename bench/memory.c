/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a benchmark, and the numbers in it: normally distributed, from a fixed seed, drawn
 * from a table of prime length so that filling costs a copy and rows do not repeat in step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { TABLE = 1000003 };

uint64_t bench_random(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Uniform in (0, 1]. */
static double next_uniform(uint64_t *state) {
    return ((double)(bench_random(state) >> 11) + 1.0) * 0x1p-53;
}

/* Box and Muller's transform. */
static void fill_table(float *table) {
    uint64_t state = 1;
    for (int i = 0; i < TABLE; i++) {
        double radius = sqrt(-2.0 * log(next_uniform(&state)));
        table[i] = (float)(radius * cos(2.0 * 3.14159265358979323846 * next_uniform(&state)));
    }
}

void *bench_bytes(struct bench_memory *memory, size_t bytes) {
    size_t rounded = (bytes + QKV_ALIGNMENT) / QKV_ALIGNMENT * QKV_ALIGNMENT;
    void *block = NULL;
    if (!memory->failed && memory->count < BENCH_BLOCKS)
        block = aligned_alloc(QKV_ALIGNMENT, rounded);
    memory->failed |= !block;
    if (!block)
        return NULL;
    memset(block, 0, rounded);
    memory->block[memory->count++] = block;
    return block;
}

float *bench_zeros(struct bench_memory *memory, int64_t count) {
    return bench_bytes(memory, (size_t)count * sizeof(float));
}

float *bench_normal(struct bench_memory *memory, int64_t count) {
    static float table[TABLE];
    if (table[0] == 0.0f)
        fill_table(table);
    float *numbers = bench_zeros(memory, count);
    for (int64_t i = 0; numbers && i < count;) {
        size_t from = memory->drawn % TABLE;
        size_t run = TABLE - from;
        if ((int64_t)run > count - i)
            run = (size_t)(count - i);
        memcpy(numbers + i, table + from, run * sizeof(float));
        memory->drawn += run;
        i += (int64_t)run;
    }
    return numbers;
}

void bench_free(struct bench_memory *memory) {
    while (memory->count > 0)
        free(memory->block[--memory->count]);
}
