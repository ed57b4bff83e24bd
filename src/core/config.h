/* SPDX-License-Identifier: Apache-2.0 */
/* What meson knows of the target, for src/core: meson.build defines QKV_X86_64, QKV_AARCH64
 * and QKV_SLEEF as 0 or 1. */
#ifndef QKV_CORE_CONFIG_H
#define QKV_CORE_CONFIG_H

#if !defined(QKV_X86_64) || !defined(QKV_AARCH64)
#error "compile this file through meson"
#endif

#endif
