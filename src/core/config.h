/* SPDX-License-Identifier: Apache-2.0 */
/* What meson knows of the target, for src/core: meson.build defines QKV_X86_64, QKV_AARCH64,
 * QKV_SLEEF, and QKV_ROOM_AVX2 and so on of what is built, as 0 or 1. */
#ifndef QKV_CORE_CONFIG_H
#define QKV_CORE_CONFIG_H

#if !defined(QKV_X86_64) || !defined(QKV_AARCH64)
#error "compile this file through meson"
#endif

/* Before a loop of at most n turns, a constant: straight code, in which arrays of vectors live in
 * registers. clang does not know gcc's pragma, and would keep them in memory. */
#define QKV_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define QKV_UNROLL(n) QKV_PRAGMA(clang loop unroll(full))
#else
#define QKV_UNROLL(n) QKV_PRAGMA(GCC unroll n)
#endif

/* A function whose frame is large: inlined beside another one, the two would add up on the stack,
 * of which a call has 16 KiB. */
#define QKV_LARGE_FRAME __attribute__((noinline))

#endif
