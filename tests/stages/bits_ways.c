/* SPDX-License-Identifier: Apache-2.0 */
/* The ways of running that the suites of the law of the bits go through. */
#include "bits.h"

const struct how bits_ways[BITS_WAYS] = {
    {WAY_POOL, 1, 0},     {WAY_POOL, 2, 0},       {WAY_POOL, 3, 1},    {WAY_POOL, 7, 1},
    {WAY_THREADS, 1, 1},  {WAY_THREADS, 2, 2},    {WAY_THREADS, 3, 3}, {WAY_THREADS, 7, 4},
    {WAY_REVERSED, 1, 5}, {WAY_ONE_BY_ONE, 1, 6}, {WAY_RANDOM, 1, 7},  {WAY_RANDOM, 1, 8},
    {WAY_RANDOM, 1, 9},
};
