/* SPDX-License-Identifier: Apache-2.0 */
/* The version of the header; qkv_version() tells that of the library. */
#ifndef QKV_VERSION_H
#define QKV_VERSION_H

#define QKV_VERSION_MAJOR 0
#define QKV_VERSION_MINOR 1
#define QKV_VERSION_PATCH 0
#define QKV_VERSION_STRING "0.1.0"

#endif
