/* SPDX-License-Identifier: Apache-2.0 */
#define CACHE_TYPES .append_keys = {0}
