# SPDX-License-Identifier: Apache-2.0
"""How one turn of a peer is timed: warm up, then calls until the turn's time is used up."""

import math
import os
import statistics
from time import perf_counter, process_time

SHORT = 20e-6  # calls shorter than this are timed several at a time
MOST_SAMPLES = 400


def seconds_of(run, times):
    start = perf_counter()
    for _ in range(times):
        run()
    return (perf_counter() - start) / times


def estimate(run):
    """About how long a call takes; long ones are tried once."""
    seconds = seconds_of(run, 1)
    return seconds if seconds > 10e-3 else min(seconds_of(run, 1) for _ in range(3))


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


class Lost:
    """Counts what kept this process from running since it was made."""

    def __init__(self):
        self.start, self.ran, self.waited = perf_counter(), process_time(), waited()

    def share(self):
        """Of the time: that its threads waited for a core, or that none of them ran at all (a page
        read from disk, a machine that was halted), whichever is more."""
        wall = perf_counter() - self.start
        idle = wall - (process_time() - self.ran)
        return max(waited() - self.waited, idle) / wall


def waited():
    """Seconds that the threads of this process were ready to run while others had the cores."""
    total = 0
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/schedstat") as file:
                total += int(file.read().split()[1])
        except OSError:
            pass  # the thread has ended, or the kernel does not count
    return total * 1e-9
