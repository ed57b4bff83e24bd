# SPDX-License-Identifier: Apache-2.0
"""The inputs of a shape, and NumPy in float64 as the judge of everyone's output."""

import numpy as np

from . import memory

TOLERANCE = 1e-4
ROWS = 256


def make_inputs(shape, seed=1):
    """float32 arrays, the same for everyone."""
    draw = np.random.default_rng(seed)
    if shape.stage == "project":
        w = draw.standard_normal((shape.matrices, shape.d_model, shape.d_model), np.float32)
        return {
            "x": draw.standard_normal((shape.tokens, shape.d_model), np.float32),
            "w": w / np.float32(np.sqrt(shape.d_model)),
        }
    q = (shape.q_heads, shape.length, shape.head_dim)
    kv = (shape.kv_heads, shape.length, shape.head_dim)
    return {
        name: draw.standard_normal(size, np.float32)
        for name, size in (("q", q), ("k", kv), ("v", kv))
    }


def reference(shape, inputs):
    """The output in float64: [heads, length, dim], or [tokens, width]."""
    if shape.stage == "project":
        x = inputs["x"].astype(np.float64)
        return np.concatenate([x @ w.astype(np.float64) for w in inputs["w"]], axis=1)
    group = shape.q_heads // shape.kv_heads
    out = np.empty(inputs["q"].shape)
    for head in range(shape.q_heads):
        k = inputs["k"][head // group].astype(np.float64)
        v = inputs["v"][head // group].astype(np.float64)
        for first in range(0, shape.length, ROWS):
            rows = slice(first, min(first + ROWS, shape.length))
            q = inputs["q"][head, rows].astype(np.float64)
            out[head, rows] = _attend(shape, q, first, k, v)
    return out


def _attend(shape, q, first, k, v):
    s = q @ k.T / np.sqrt(shape.head_dim)
    if shape.causal:
        position = first + np.arange(len(q))[:, None]
        s[np.arange(shape.length)[None, :] > position] = -np.inf
    s -= s.max(axis=1, keepdims=True)
    np.exp(s, out=s)
    return s @ v / s.sum(axis=1, keepdims=True)


def save(shape, folder):
    """Writes inputs and reference into folder, for the peers' processes."""
    inputs = make_inputs(shape)
    for name, array in inputs.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "reference.npy", reference(shape, inputs))


def load_inputs(shape, folder):
    """What save() left, page-aligned."""
    names = ("x", "w") if shape.stage == "project" else ("q", "k", "v")
    return {name: memory.aligned_copy(np.load(folder / f"{name}.npy")) for name in names}


def largest_error(output, folder):
    """Infinite if any element is not a number."""
    right = np.load(folder / "reference.npy", mmap_mode="r")
    worst = 0.0
    for mine, theirs in zip(output, right):
        difference = float(np.max(np.abs(mine - theirs)))
        worst = max(worst, difference if np.isfinite(difference) else np.inf)
    return worst
