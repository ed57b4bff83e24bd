#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""qkv attend on random arrays with random options against NumPy in float64.

Usage: attend_numpy.py QKV ROOM. The tolerance of every number follows from the data: the bound
on the rounding of float32 that the sums behind it can have. $QKV_TEST_SEED sets the seed,
$QKV_TEST_CASES how many cases at most (240), $QKV_TEST_ONLY the one case to run.
"""

import collections
import json
import os
import random
import sys
import tempfile
import time

import command
from command import qkv

try:
    import numpy as np
except ImportError:
    command.skip_all("this Python has no NumPy (Debian: python3-numpy)")

ROOM = command.arguments[1]
CASES = min(240, int(os.environ.get("QKV_TEST_CASES", 240)))
UNIT = 2.0 ** -24  # rounding of float32
TINY = 1e-36       # below this float32 loses bits
ELEMENTARY = 16    # units: what exp, log and tanh may be off, and then some


def reference_scores(q, k, case, h, b):
    """Scores of one head of one sequence with masks, the bound of their error, and the mask."""
    (q, q_error), (k, k_error) = q, k
    size = np.abs(q) @ np.abs(k).T
    error = (q.shape[1] + 4) * UNIT * size
    error = error + q_error @ np.abs(k).T + np.abs(q) @ k_error.T + q_error @ k_error.T
    s, error = case.scale * (q @ k.T), abs(case.scale) * error
    if case.softcap:
        s = case.softcap * np.tanh(s / case.softcap)
        error = error + ELEMENTARY * UNIT * case.softcap
    nq, nk = s.shape
    position = np.arange(nq)[:, None] + (0 if case.top_left else nk - nq)
    key = np.arange(nk)[None, :]
    extra = np.zeros_like(s)
    if case.slopes is not None:
        extra = extra - case.slopes[h] * np.abs(position - key)
    size = np.abs(extra)
    if case.bias is not None:
        bias = case.bias[b, h, :nq, :nk]
        with np.errstate(invalid="ignore"):
            extra = extra + bias
        size = size + np.where(np.isfinite(bias), np.abs(bias), 0)
    with np.errstate(invalid="ignore"):
        s = s + extra
    keep = s > -np.inf
    if case.causal:
        keep = keep & (key <= position)
    if case.window:
        left, right = case.window
        keep = keep & ((left < 0) | (key >= position - left))
        keep = keep & ((right < 0) | (key <= position + right))
    if case.mask is not None:
        keep = keep & (case.mask[b, h, :nq, :nk] != 0)
    return s, error + 8 * UNIT * (np.abs(np.where(keep, s, 0)) + size), keep


def reference(q, k, v, case, h, b):
    """(value, bound) of the weights, the output and the LSE of one head of one sequence."""
    s, error, keep = reference_scores(q, k, case, h, b)
    v, v_error = v
    nk = s.shape[1]
    s = np.where(keep, s, -np.inf)
    error = np.where(keep, error, 0).max(axis=1, initial=0)
    sink = np.full(len(s), case.sinks[h] if case.sinks is not None else -np.inf)
    top = np.maximum(s.max(axis=1, initial=-np.inf), sink)
    base = np.where(np.isfinite(top), top, 0)
    mass = np.exp(s - base[:, None])
    total = mass.sum(axis=1) + np.exp(sink - base)
    with np.errstate(divide="ignore"):
        lse = base + np.log(total)
    weights = mass / np.where(total > 0, total, 1)[:, None]
    relative = np.expm1(2 * error) + (nk + ELEMENTARY) * UNIT
    weights_bound = weights * relative[:, None] + TINY
    out_bound = weights_bound @ (np.abs(v) + v_error) + weights @ v_error + TINY
    finite = np.where(np.isfinite(lse), lse, 0)
    lse_bound = error + (nk + ELEMENTARY) * UNIT + 4 * UNIT * np.abs(finite)
    return (weights, weights_bound), (weights @ v, out_bound), (lse, lse_bound)


class Draw:
    """One random case: files, the command's arguments, and what to expect."""

    def __init__(self, seed, number, folder):
        self.random = random.Random(f"{seed} {number}")
        self.numpy = np.random.default_rng([seed, number])
        self.folder = folder
        self.arguments, self.used = [], set()
        self.scale = self.softcap = 0.0
        self.causal = self.top_left = False
        self.window = self.slopes = self.sinks = self.bias = self.mask = None
        self.q_lens = self.kv_lens = self.cu_q = self.cu_kv = None

    def chance(self, probability):
        return self.random.random() < probability

    def below(self, low, high):
        return self.random.randint(low, high)

    def add(self, option, *value):
        self.used.add(option)
        self.arguments += [option, *map(str, value)]

    def save(self, option, array):
        """Writes the file of an option, as float32 or float64, in any version of the format."""
        path = os.path.join(self.folder, option[2:] + ".npy")
        if array.dtype == np.float32 and self.chance(0.3):
            # Numbers that are not float32 already: the command rounds them as NumPy does.
            array = array.astype(np.float64) + self.numpy.standard_normal(array.shape) * 1e-9
        with open(path, "wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array),
                                      self.random.choice([None, (1, 0), (2, 0), (3, 0)]))
        self.add(option, path)
        return array.astype(np.float32).astype(np.float64) if array.dtype.kind == "f" else array

    def normal(self, *shape):
        return self.numpy.standard_normal(shape).astype(np.float32)

    # The shapes.

    def sizes(self):
        self.form = self.random.choice(["2", "3", "4", "ragged 2", "ragged 3", "x 2", "x 3", "x ragged"])
        self.kv_heads = self.below(1, 3)
        self.heads = self.kv_heads * self.random.choice([1, 1, 2, 4])
        self.dim = self.random.choice([1, 2, 7, 8, 16, self.below(1, 70), 64, 130])
        self.v_dim = self.random.choice([self.dim, self.dim, self.below(1, 70)])
        # Nothing says how many heads there are: one.
        self.says_heads = self.form in ("3", "4", "ragged 3") or self.chance(0.8)
        if not self.says_heads:
            self.heads = self.kv_heads = 1
        self.ragged = "ragged" in self.form
        self.merged = self.form not in ("3", "4", "ragged 3")
        self.batched = self.form in ("4", "x 3")
        self.batch = self.below(1, 3) if self.batched or self.ragged else 1

    def length(self):
        return self.random.choice([0, 1, 5, self.below(0, 40), self.below(0, 40),
                                   self.random.choice([255, 256, 257, 300])])

    def lengths(self):
        """The rows and keys of each sequence, and the options that say so."""
        same = self.form.startswith("x")
        if self.ragged:
            self.q_n = [self.length() for _ in range(self.batch)]
            self.kv_n = self.q_n if same else [self.length() for _ in range(self.batch)]
            self.cu_q = [0, *np.cumsum(self.q_n).tolist()]
            self.cu_kv = [0, *np.cumsum(self.kv_n).tolist()]
            self.add("--cu-q", ",".join(map(str, self.cu_q)))
            if not same or self.chance(0.5):
                self.add("--cu-kv", ",".join(map(str, self.cu_kv)))
            self.q_len, self.kv_len = max(self.q_n), max(self.kv_n)
            return
        self.q_len = self.length()
        self.kv_len = self.q_len if same else self.length()
        self.q_n, self.kv_n = [self.q_len] * self.batch, [self.kv_len] * self.batch
        if self.chance(0.3):
            self.q_n = [self.below(0, self.q_len) for _ in self.q_n]
            self.add("--q-lens", ",".join(map(str, self.q_n)))
            self.kv_n = self.q_n if same else self.kv_n
        if self.chance(0.3):
            self.kv_n = [self.below(0, self.kv_len) for _ in self.kv_n]
            self.add("--kv-lens", ",".join(map(str, self.kv_n)))

    # The arrays.

    def rows(self, which):
        cu, most = (self.cu_q, self.q_len) if which == "q" else (self.cu_kv, self.kv_len)
        return cu[-1] if cu else most

    def in_form(self, which, heads, dim):
        """A random array in the case's form, and it as [blocks, heads, rows, dim]."""
        blocks, rows = self.batch if self.batched else 1, self.rows(which)
        array = self.normal(blocks, heads, rows, dim)
        if self.merged:
            file = array.swapaxes(1, 2).reshape(blocks, rows, heads * dim)[0]
            saved = self.save("--" + which, file).reshape(1, rows, heads, dim).swapaxes(1, 2)
        else:
            saved = self.save("--" + which, array if self.batched else array[0])
            saved = saved.reshape(blocks, heads, rows, dim)
        return saved, np.zeros_like(saved)

    def direct(self):
        self.q = self.in_form("q", self.heads, self.dim)
        self.k = self.in_form("k", self.kv_heads, self.dim)
        self.v = self.in_form("v", self.kv_heads, self.v_dim)
        if self.merged and self.says_heads:
            self.add("--heads", self.heads)
        if self.merged and self.says_heads and self.chance(0.5):
            self.add("--kv-heads", self.kv_heads)

    def project_one(self, x, letter, heads, dim, out_in):
        d_model = x.shape[2]
        w = (self.numpy.standard_normal((d_model, heads * dim)) / d_model ** 0.5).astype(np.float32)
        w = self.save("--w" + letter, w.T if out_in else w)
        w = w.T if out_in else w
        value, bound = x @ w, (d_model + 4) * UNIT * (np.abs(x) @ np.abs(w))
        if self.chance(0.5):
            b = self.save("--b" + letter, self.normal(heads * dim))
            value, bound = value + b, bound + 2 * UNIT * np.abs(b)
        bound = bound + 2 * UNIT * np.abs(value)
        return tuple(a.reshape(*a.shape[:2], heads, dim).swapaxes(1, 2) for a in (value, bound))

    def projected(self):
        d_model = self.random.choice([1, 3, 16, self.below(1, 100)])
        blocks, rows = self.batch if self.batched else 1, self.rows("q")
        x = self.normal(blocks, rows, d_model)
        x = self.save("--x", x if self.batched else x[0]).reshape(blocks, rows, d_model)
        out_in = self.chance(0.5)
        if out_in or self.chance(0.3):
            self.add("--w-layout", "out-in" if out_in else "in-out")
        if self.says_heads:
            self.add("--heads", self.heads)
            if self.chance(0.5):
                self.add("--kv-heads", self.kv_heads)
        self.q = self.project_one(x, "q", self.heads, self.dim, out_in)
        self.k = self.project_one(x, "k", self.kv_heads, self.dim, out_in)
        self.v = self.project_one(x, "v", self.kv_heads, self.v_dim, out_in)

    # The options.

    def numbers(self):
        self.scale = float(np.float32(1 / np.sqrt(self.dim)))
        if self.chance(0.4):
            value = self.random.choice([0, 1, -0.3, 0.05, round(self.random.uniform(-1, 1), 3)])
            self.add("--scale", value)
            self.scale = float(np.float32(value))
        if self.chance(0.25):
            value = self.random.choice([0, 0.5, 5, 50])
            self.add("--softcap", value)
            self.softcap = float(value)

    def positions(self):
        if self.chance(0.4):
            self.causal = True
            self.add("--causal")
        if self.chance(0.5):
            self.top_left = self.chance(0.5)
            self.add("--align", "top-left" if self.top_left else "bottom-right")
        if self.chance(0.3):
            self.window = tuple(self.random.choice([-1, 0, 1, self.below(0, 60)]) for _ in range(2))
            self.add("--window", ",".join(map(str, self.window)))

    def exponential(self):
        """The tiers whose error float32 hides; tests/stages/exp2.c measures them all."""
        if self.chance(0.4):
            self.add("--exp", self.random.choice(["sleef-u10", "sleef-u35", "poly5"]))

    def per_head(self):
        if self.chance(0.3):
            if self.chance(0.5):
                self.slopes = np.exp2(-8 * np.arange(1, self.heads + 1) / self.heads)
                self.slopes = self.slopes.astype(np.float32).astype(np.float64)
                self.add("--alibi", "auto")
            else:
                self.slopes = self.save("--alibi", self.normal(self.heads))
        if self.chance(0.3):
            self.sinks = self.save("--sinks", 2 * self.normal(self.heads))

    def broadcast_shape(self):
        """[batch, heads, queries, keys], or 1 in places, or without the first few."""
        full = (self.batch, self.heads, self.q_len, self.kv_len)
        shape = [1 if self.chance(0.3) else size for size in full]
        return full, shape[self.below(0, 3):]

    def masks(self):
        if self.chance(0.3):
            full, shape = self.broadcast_shape()
            bias = self.normal(*shape)
            if self.chance(0.5):
                bias[self.numpy.random(shape) < 0.2] = -np.inf
            self.bias = np.broadcast_to(self.save("--bias", bias), full)
        if self.chance(0.3):
            full, shape = self.broadcast_shape()
            mask = self.numpy.random(shape) < self.random.choice([0.2, 0.9])
            if self.chance(0.5):
                mask = mask.astype(np.uint8) * np.uint8(self.random.choice([1, 255]))
            self.mask = np.broadcast_to(self.save("--mask", mask), full)

    def outputs(self):
        wanted = [name for name in ("--out", "--lse", "--weights") if self.chance(0.8)] or ["--out"]
        self.wanted = {name: os.path.join(self.folder, f"answer{name}.npy") for name in wanted}
        for name, path in self.wanted.items():
            self.add(name, path)
        self.add("--isa", ROOM)
        if self.chance(0.7):
            self.add("--threads", self.below(1, 3))

    def make(self):
        self.sizes()
        self.lengths()
        if self.form.startswith("x"):
            self.projected()
        else:
            self.direct()
        self.numbers()
        self.positions()
        self.exponential()
        self.per_head()
        self.masks()
        self.outputs()
        return self

    # What to expect.

    def part(self, pair, which, b, h):
        """The rows of one head of one sequence, of an array and of its bound."""
        cu, n = (self.cu_q, self.q_n) if which == "q" else (self.cu_kv, self.kv_n)
        block, first = (0, cu[b]) if cu else (b, 0)
        return tuple(array[block, h, first:first + n[b]] for array in pair)

    def expected(self):
        """{option: (values, bounds)} as [blocks, heads, rows, columns]."""
        blocks, rows = self.q[0].shape[0], self.rows("q")
        shapes = {"--out": self.v_dim, "--lse": 1, "--weights": self.kv_len}
        answers = {name: (np.zeros((blocks, self.heads, rows, columns)),
                          np.zeros((blocks, self.heads, rows, columns)))
                   for name, columns in shapes.items()}
        answers["--lse"][0][:] = -np.inf
        for b in range(self.batch):
            block, first = (0, self.cu_q[b]) if self.cu_q else (b, 0)
            there = slice(first, first + self.q_n[b])
            for h in range(self.heads):
                kv = h // (self.heads // self.kv_heads)
                weights, out, lse = reference(self.part(self.q, "q", b, h),
                                              self.part(self.k, "k", b, kv),
                                              self.part(self.v, "k", b, kv), self, h, b)
                for i in range(2):
                    answers["--out"][i][block, h, there] = out[i]
                    answers["--lse"][i][block, h, there, 0] = lse[i]
                    answers["--weights"][i][block, h, there, : self.kv_n[b]] = weights[i]
        return answers

    def shaped(self, name, array):
        """[blocks, heads, rows, columns] in the shape that the command gives it."""
        if name == "--out" and self.merged:
            array = array.swapaxes(1, 2)
            array = array.reshape(*array.shape[:2], self.heads * self.v_dim)
        elif not self.says_heads:
            array = array[:, 0]
        if name == "--lse":
            array = array[..., 0]
        return array if self.batched else array[0]

    def wrong(self):
        """What is wrong with the command's answers, or None."""
        done = qkv("attend", *self.arguments)
        if (done.returncode, done.stdout, done.stderr) != (0, "", ""):
            return f"exit status {done.returncode}: {done.stdout}{done.stderr}"
        expected = self.expected()
        for name, path in self.wanted.items():
            answer = np.load(path)
            value, bound = (self.shaped(name, array) for array in expected[name])
            if answer.dtype != np.float32 or answer.shape != value.shape:
                return f"{name}: {answer.dtype} {answer.shape}, expected float32 {value.shape}"
            with np.errstate(invalid="ignore"):
                bad = ~((answer == value) | (np.abs(answer - value) <= bound))
            if bad.any():
                at = tuple(map(int, np.argwhere(bad)[0]))
                return (f"{name}{list(at)} is {answer[at]}, expected {value[at]} "
                        f"+- {bound[at]:.3g}; {bad.sum()} of {bad.size} are off")
        return None


def usable_rooms():
    done = qkv("cpu", "--json")
    return {name for name, room in json.loads(done.stdout)["rooms"].items() if room["usable"]}


OPTIONS = {"--q", "--k", "--v", "--x", "--wq", "--wk", "--wv", "--bq", "--bk", "--bv", "--w-layout",
           "--heads", "--kv-heads", "--scale", "--softcap", "--causal", "--align", "--exp", "--window",
           "--alibi", "--sinks", "--bias", "--mask", "--q-lens", "--kv-lens", "--cu-q", "--cu-kv",
           "--out", "--lse", "--weights", "--isa", "--threads"}


def main():
    if ROOM not in usable_rooms():
        command.skip_all(f"this CPU or this build has no {ROOM}")
    seed = os.environ.get("QKV_TEST_SEED", "1")
    seed = time.time_ns() % 2 ** 32 if seed == "time" else int(seed, 0)
    only = os.environ.get("QKV_TEST_ONLY")
    print(f"{ROOM}: {CASES} cases, QKV_TEST_SEED={seed}")
    counts, failures = collections.Counter(), 0
    for number in [int(only)] if only else range(CASES):
        with tempfile.TemporaryDirectory(prefix="qkv-attend.") as folder:
            case = Draw(seed, number, folder).make()
            wrong = case.wrong()
            counts.update(case.used)
        if wrong:
            failures += 1
            print(f"case {number}: {wrong}\n  qkv attend {' '.join(case.arguments)}\n"
                  f"  again: QKV_TEST_SEED={seed} QKV_TEST_ONLY={number}")
    print("cases with each option:", ", ".join(f"{name} {counts[name]}" for name in sorted(OPTIONS)))
    missing = OPTIONS - set(counts)
    if CASES >= 200 and not only and missing:
        print(f"options that no case used: {', '.join(sorted(missing))}")
        failures += 1
    print(f"{failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
