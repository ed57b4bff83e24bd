# SPDX-License-Identifier: Apache-2.0
"""From measured turns to figures: medians, ratios with their intervals, and what was reached."""

import math
import statistics

import numpy as np

from . import shapes

RESAMPLES = 4000


def ratio_interval(theirs, ours, seed=1):
    """How many times faster ours is: the median of the rounds' ratios, and its 95 % interval by
    bootstrap over rounds (each round's two turns stay together)."""
    ratios = np.asarray(theirs) / np.asarray(ours)
    draw = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[draw], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def row(entry, shape, threads, ours):
    """One line of the table, ready for JSON. ours: the seconds of qkv, or None."""
    line = {
        "peer": entry.name,
        "version": entry.version,
        "state": entry.state,
        "reason": entry.reason,
        "error": entry.error,
        "memory": entry.memory,
    }
    if entry.state != "timed":
        return line
    gflops = [shape.flops / s * 1e-9 for s in entry.seconds]
    percent = [100 * g / (p * threads) for g, p in zip(gflops, entry.peaks)]
    line |= {
        "seconds": entry.seconds,
        "peaks": entry.peaks,
        "noisy": entry.noisy,
        "median": statistics.median(entry.seconds),
        "gflops": statistics.median(gflops),
        "percent": statistics.median(percent),
    }
    if ours and len(ours) == len(entry.seconds):
        line["ratio"], line["low"], line["high"] = ratio_interval(entry.seconds, ours)
    return line


def is_peer(line, shape):
    """Whether qkv is judged by it. Decoding is judged by those who have an operator for it: a
    product of a few rows by hand reads the cache as fast as anybody can where it is all there is
    to do, and shows that in the table."""
    if line["peer"].startswith("by hand"):
        return shape.stage != "decode"
    return not line["peer"].startswith("qkv")


def verdict(shape, threads, lines):
    """qkv against the fastest peer: that peer, the ratio, and whether what was set out is reached
    (None where nothing was)."""
    timed = [line for line in lines if line["state"] == "timed"]
    ours = next((line for line in timed if line["peer"] == "qkv"), None)
    theirs = [line for line in timed if is_peer(line, shape) and "ratio" in line]
    if not ours or not theirs:
        return None
    fastest = min(theirs, key=lambda line: line["ratio"])
    error = ours["error"] / max(min(line["error"] for line in theirs), 1e-30)
    reached = None
    target = shapes.target(shape, threads)
    if target:
        reached = fastest["ratio"] >= target
    elif shape.never_behind:
        reached = fastest["low"] >= 0.98
    return {
        "fastest": fastest["peer"],
        "ratio": fastest["ratio"],
        "low": fastest["low"],
        "high": fastest["high"],
        "target": target,
        "never_behind": shape.never_behind,
        "reached": reached,
        "error_ratio": error,
        "error_reached": error <= 1.2,
    }


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def result(shape, threads, entries):
    """Everything about one shape at one number of threads, ready for JSON."""
    ours = next((e.seconds for e in entries if e.name == "qkv" and e.state == "timed"), None)
    lines = [row(entry, shape, threads, ours) for entry in entries]
    return {
        "shape": shape.name,
        "family": shape.family,
        "label": shape.label,
        "stage": shape.stage,
        "length": getattr(shape, "length", None),
        "threads": threads,
        "flops": shape.flops,
        "bytes": getattr(shape, "bytes", None),
        "rows": lines,
        "verdict": verdict(shape, threads, lines),
    }
