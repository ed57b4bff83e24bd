# SPDX-License-Identifier: Apache-2.0
"""How one turn of a peer is timed: warm up, then calls until the turn's time is used up."""

import math
import statistics
from time import perf_counter

SHORT = 20e-6  # calls shorter than this are timed several at a time
MOST_SAMPLES = 400


def seconds_of(run, times):
    start = perf_counter()
    for _ in range(times):
        run()
    return (perf_counter() - start) / times


def turn(run, expected, budget):
    """The median seconds of a call. expected: about how long one takes. A long call is made once,
    after one to warm up unless it is so long that this cannot matter."""
    if expected < 1e-3:
        end = perf_counter() + 2e-3
        while perf_counter() < end:
            run()
    elif expected < 50e-3:
        run()
    times = max(1, math.ceil(SHORT / expected))
    samples = min(MOST_SAMPLES, max(1, round(budget / (expected * times))))
    return statistics.median(seconds_of(run, times) for _ in range(samples))
