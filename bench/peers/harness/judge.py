# SPDX-License-Identifier: Apache-2.0
"""The inputs of a shape, and NumPy in float64 as the judge of everyone's output."""

import numpy as np

from . import memory

TOLERANCE = 1e-4
# Whoever computes in a half-width type rounds its output to it; of int8 everyone has a way of his
# own.
TOLERANCES = {"f16": 2e-3, "bf16": 2e-2, "i8": 2e-2}
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
    if shape.stage == "decode":
        kv = (shape.kv_heads, shape.length, shape.head_dim)
        sizes = {"q": (shape.q_heads, 1, shape.head_dim), "k": kv, "v": kv}
        return {
            name: rounded(draw.standard_normal(size, np.float32), shape.stored)
            for name, size in sizes.items()
        }
    q = (shape.q_heads, shape.length, shape.head_dim)
    kv = (shape.kv_heads, shape.length, shape.head_dim)
    sizes = {"q": q, "k": kv, "v": kv} | ({"d_out": q} if shape.stage == "learning" else {})
    return {name: draw.standard_normal(size, np.float32) for name, size in sizes.items()}


def tolerance(shape):
    """The largest error that is taken for rounding."""
    return TOLERANCES.get(getattr(shape, "stored", None), TOLERANCE)


def rounded(array, stored):
    """To the nearest number of a floating-point type, so that storing loses nothing."""
    if stored == "f16":
        return array.astype(np.float16).astype(np.float32)
    if stored == "bf16":
        bits = array.view(np.uint32)
        bits += 0x7FFF + (bits >> 16 & 1)
        bits &= 0xFFFF0000
    return array


def reference(shape, inputs):
    """The output in float64: [heads, length, dim], or [tokens, width]."""
    return REFERENCES[shape.stage](shape, inputs)


def _project(shape, inputs):
    x = inputs["x"].astype(np.float64)
    return np.concatenate([x @ w.astype(np.float64) for w in inputs["w"]], axis=1)


def _blocks(shape, inputs):
    """Some rows of a head at a time: the head, its key/value head, the rows, in float64 their Q, and
    the K and V they see."""
    group = shape.q_heads // shape.kv_heads
    for head in range(shape.q_heads):
        k = inputs["k"][head // group].astype(np.float64)
        v = inputs["v"][head // group].astype(np.float64)
        for first in range(0, shape.length, ROWS):
            rows = slice(first, min(first + ROWS, shape.length))
            yield head, head // group, rows, inputs["q"][head, rows].astype(np.float64), k, v


def _attention(shape, inputs):
    out = np.empty(inputs["q"].shape)
    for head, _, rows, q, k, v in _blocks(shape, inputs):
        out[head, rows] = _weights(shape, q, rows.start, k) @ v
    return out


def _decode(shape, inputs):
    out = np.empty(inputs["q"].shape)
    group = shape.q_heads // shape.kv_heads
    for kv_head in range(shape.kv_heads):
        heads = slice(kv_head * group, (kv_head + 1) * group)
        q = inputs["q"][heads, 0].astype(np.float64)
        k, v = (inputs[name][kv_head].astype(np.float64) for name in "kv")
        out[heads, 0] = _weights(shape, q, 0, k) @ v
    return out


def _learning(shape, inputs):
    """dQ, dK and dV, head by head, in one array: dS = P (dP - sum of P dP)."""
    d_q, d_k, d_v = (np.zeros(inputs[name].shape) for name in "qkv")
    for head, kv_head, rows, q, k, v in _blocks(shape, inputs):
        d_out = inputs["d_out"][head, rows].astype(np.float64)
        p = _weights(shape, q, rows.start, k)
        d_p = d_out @ v.T
        d_s = p * (d_p - np.sum(p * d_p, axis=1, keepdims=True)) / np.sqrt(shape.head_dim)
        d_q[head, rows] = d_s @ k
        d_k[kv_head] += d_s.T @ q
        d_v[kv_head] += p.T @ d_out
    return np.concatenate([d_q, d_k, d_v])


def _weights(shape, q, first, k):
    s = q @ k.T / np.sqrt(shape.head_dim)
    if shape.causal:
        position = first + np.arange(len(q))[:, None]
        s[np.arange(shape.length)[None, :] > position] = -np.inf
    s -= s.max(axis=1, keepdims=True)
    np.exp(s, out=s)
    return s / s.sum(axis=1, keepdims=True)


REFERENCES = {"attention": _attention, "learning": _learning, "project": _project,
              "decode": _decode}
INPUTS = {"attention": ("q", "k", "v"), "decode": ("q", "k", "v"),
          "learning": ("q", "k", "v", "d_out"), "project": ("x", "w")}


def save(shape, folder):
    """Writes inputs and reference into folder, for the peers' processes."""
    inputs = make_inputs(shape)
    for name, array in inputs.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "reference.npy", reference(shape, inputs))


def load_inputs(shape, folder):
    """What save() left, page-aligned."""
    names = INPUTS[shape.stage]
    return {name: memory.aligned_copy(np.load(folder / f"{name}.npy")) for name in names}


def largest_error(output, folder):
    """Infinite if any element is not a number."""
    right = np.load(folder / "reference.npy", mmap_mode="r")
    worst = 0.0
    for mine, theirs in zip(output, right):
        difference = float(np.max(np.abs(mine - theirs)))
        worst = max(worst, difference if np.isfinite(difference) else np.inf)
    return worst
