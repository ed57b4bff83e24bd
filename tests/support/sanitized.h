/* SPDX-License-Identifier: Apache-2.0 */
/* Whether this is built with a sanitizer whose runtime allocates, enters the system and uses the
 * stack by itself. */
#ifndef QKV_TEST_SANITIZED_H
#define QKV_TEST_SANITIZED_H

#if defined(__has_feature) /* clang */
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* gcc */
#define SANITIZED 1
#endif

#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
