/* SPDX-License-Identifier: Apache-2.0 */
/* The room under test: its context, its peak, and how long one call may be. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "clock.h"

struct bench_room bench_room;

static const double longest_seconds = 2.0;

int bench_room_open(int isa) {
    qkv_context_config config;
    qkv_context_config_init(&config);
    config.isa_max = isa;
    bench_room.name = qkv_isa_name(isa);
    if (!qkv_isa_built(isa) || qkv_context_init(&bench_room.context, &config) != QKV_OK)
        return -1;
    return qkv_context_isa(&bench_room.context) == (qkv_isa)isa ? 0 : -1;
}

/* The room's speed in a small call of attention, flops per second. */
static double try_speed(void) {
    const struct bench_shape shape = {1, 1, 256, 256, 64, 0, 1, NULL};
    const int64_t count = (int64_t)shape.q_len * shape.head_dim;
    struct bench_memory memory = {.count = 0};
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_exec exec;
    qkv_plan plan;
    bench_shape_params(&params, &shape);
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(bench_normal(&memory, count), 1, shape.q_len, shape.head_dim);
    tensors.k = qkv_tensor_bhsd(bench_normal(&memory, count), 1, shape.kv_len, shape.head_dim);
    tensors.v = qkv_tensor_bhsd(bench_normal(&memory, count), 1, shape.kv_len, shape.head_dim);
    tensors.out = qkv_tensor_bhsd(bench_zeros(&memory, count), 1, shape.q_len, shape.head_dim);
    qkv_exec_init(&exec);
    exec.context = &bench_room.context;
    double best = INFINITY;
    if (qkv_attention_plan(&plan, &params, exec.context) == QKV_OK) {
        exec.workspace_size = qkv_plan_workspace(&plan, 1);
        exec.workspace = bench_bytes(&memory, exec.workspace_size);
    }
    for (int i = 0; i < 3; i++) {
        double start = clock_seconds();
        bench_room.failed |= qkv_attention(&params, &tensors, &exec) != QKV_OK;
        best = fmin(best, clock_seconds() - start);
    }
    bench_free(&memory);
    return 4.0 * bench_shape_products(&shape) / best;
}

static double read_bandwidth(void) {
    double best = 0.0;
    for (int i = 0; i < 4; i++)
        best = fmax(best, peak_memory_sample(bench_room.peak.kernel));
    return best;
}

/* The CPU's name goes into the reports, as far as the kernel has one (on Arm it often has none). */
static void tell_cpu(void) {
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof(line), file)) {
        char *value = strchr(line, ':');
        if (!value || strncmp(line, "model name", 10) != 0)
            continue;
        value[strcspn(value, "\n")] = 0;
        gb_context("cpu", value + 1 + strspn(value + 1, " "));
        break;
    }
    if (file)
        fclose(file);
}

void bench_room_measure(int all_shapes) {
    char text[64];
    peak_start(&bench_room.peak, peak_kernel_of(qkv_context_isa(&bench_room.context)));
    bench_room.longest = all_shapes ? INFINITY : longest_seconds * try_speed();
    tell_cpu();
    gb_context("qkv", qkv_version());
    gb_context("room", bench_room.name);
    snprintf(text, sizeof(text), "%.1f GFLOPS on one thread", peak_median(&bench_room.peak));
    gb_context("fma_peak", text);
    snprintf(text, sizeof(text), "%.1f GB/s on one thread", read_bandwidth() * 1e-9);
    gb_context("memory_read", text);
}
