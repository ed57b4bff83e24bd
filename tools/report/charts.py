# SPDX-License-Identifier: Apache-2.0
"""The drawings: percent of the FMA peak by length, and by shape; modifiers against the plain call;
qkv against its peers."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import svg
from read import Benchmark, Peers, Room

WIDTH = 920.0

# docs/performance.md, "The floor": what a vector of scores costs beside its head_dim cycles of
# multiplications, by tier of the exponential, and what the tile loops reach without it. Measured in
# these rooms.
WEIGHT_CYCLES = {"": 11.0, "sleef_u10": 11.0, "sleef_u35": 11.0, "poly5": 5.1, "poly4": 4.4}
LIMIT_ROOMS = ("avx512",)
LOOPS = 64 / 66.5
TIERS = {"": "", "sleef_u10": ", SLEEF's exponential (u10)", "sleef_u35": ", SLEEF's exponential (u35)",
         "poly5": ", inlined polynomial of degree 5", "poly4": ", inlined polynomial of degree 4"}


def limit(room: str, tier: str, head_dim: int) -> float | None:
    """The percent of peak that the loops leave once the exponential is counted."""
    if room not in LIMIT_ROOMS or tier not in WEIGHT_CYCLES:
        return None
    return 100.0 * head_dim / (head_dim / LOOPS + WEIGHT_CYCLES[tier])


def thousands(number: int) -> str:
    return f"{number:,}"


def noise(benchmark: Benchmark) -> str:
    return "~" if benchmark.noisy else ""


def told(benchmark: Benchmark) -> str:
    said = f"{benchmark.shape}: {benchmark.counters['pct_peak']:.1f} % of peak"
    return said + (", disturbed while measured" if benchmark.noisy else "")


def percent_grid(x0: float, x1: float, y: svg.Axis) -> list[str]:
    marks = []
    for value in range(0, 101, 20):
        marks.append(svg.line(x0, y(value), x1, y(value), "grid"))
        marks.append(svg.text(x0 - 8, y(value) + 4, f"{value}", "soft small end"))
    return marks


def limit_line(ceiling: float | None, left: float, right: float, y: svg.Axis) -> list[str]:
    if not ceiling:
        return []
    said = f"limit with the exponential counted: {ceiling:.1f} %"
    return [svg.line(left, y(ceiling), right, y(ceiling), "limit"),
            svg.line(left + 10, y(100) + 14, left + 34, y(100) + 14, "limit"),
            svg.text(left + 42, y(100) + 18, said, "soft small")]


def curve(places: list[tuple[float, float, Benchmark]], colour: str, above: bool) -> list[str]:
    """A line of points with their values, above or below it."""
    body = [svg.path([(x, y) for x, y, _ in places], f"s{colour}" + ("" if above else " dashed"))]
    for x, y, b in places:
        body.append(svg.dot(x, y, colour, told(b)))
        body.append(svg.text(x, y - 10 if above else y + 20,
                             f"{noise(b)}{b.counters['pct_peak']:.0f}", f"small middle halo f{colour}"))
    return body


def length_panel(room: Room, tier: str, dim: int, lengths: list[int], left: float) -> list[str]:
    """Percent of peak over the length, full and causal, of one head_dim."""
    right, top, bottom = left + 400.0, 64.0, 314.0
    x = svg.Axis(0, max(len(lengths) - 1, 1), left + 30, right - 30)
    y = svg.Axis(0, 100, bottom, top)
    body = [svg.rectangle(left, top, right - left, bottom - top, "panel", 4),
            svg.text(left, top - 12, f"head_dim {dim}")]
    body += percent_grid(left, right, y) + limit_line(limit(room.name, tier, dim), left, right, y)
    for at, length in enumerate(lengths):
        body.append(svg.text(x(at), bottom + 18, thousands(length), "soft small middle"))
    empty = True
    for causal, name, colour in ((False, "full", "c0"), (True, "causal", "c1")):
        found = {b.number("q"): b for b in room.of("attention", "pct_peak") if b.series
                 and b.tier == tier and b.number("d") == dim and b.causal == causal}
        places = [(x(at), y(found[n].counters["pct_peak"]), found[n])
                  for at, n in enumerate(lengths) if n in found]
        if places:
            empty = False
            body += curve(places, colour, not causal)
            body.append(svg.text(right - (58 if causal else 100), top - 12, name,
                                 f"small f{colour}"))
    if empty:
        body.append(svg.text((left + right) / 2, (top + bottom) / 2, "not measured", "soft middle"))
    return body


def tiers(room: Room) -> list[str]:
    """The exponentials of the series, the default first."""
    found = {b.tier for b in room.of("attention", "pct_peak") if b.series}
    return [tier for tier in TIERS if tier in found] + sorted(found - set(TIERS))


def by_length(room: Room, tier: str) -> svg.Drawing:
    lengths = sorted({b.number("q") for b in room.of("attention", "pct_peak")
                      if b.series and b.tier == tier})
    title = f"Attention, {room.name}{TIERS.get(tier, ', ' + tier)}: percent of the FMA peak"
    body = [svg.text(0, 16, title, "title"), svg.text(
        WIDTH, 16, "queries = keys, 8 heads, float32, one thread", "soft small end")]
    for left, dim in ((34.0, 64), (WIDTH - 402.0, 128)):
        body += length_panel(room, tier, dim, lengths, left)
    return svg.Drawing(WIDTH, 340, title, body)


def bars(title: str, rows: list[tuple[str, float, str, str]], most: float,
         mark: float | None = None) -> svg.Drawing:
    """Horizontal bars: name, value, what stands behind the bar, what the pointer shows."""
    left, right, top, step = 268.0, WIDTH - 70, 56.0, 22.0
    x = svg.Axis(0, most, left, right)
    bottom = top + step * len(rows)
    body = [svg.text(0, 16, title, "title")]
    for value in range(0, int(most) + 1, 20):
        body.append(svg.line(x(value), top - 8, x(value), bottom, "grid"))
        body.append(svg.text(x(value), top - 14, f"{value} %", "soft small middle"))
    if mark is not None:
        body.append(svg.line(x(mark), top - 8, x(mark), bottom, "one"))
    for at, (name, value, behind, said) in enumerate(rows):
        y = top + step * at
        body.append(svg.text(left - 10, y + 13, name, "end"))
        body.append(svg.tag("g", svg.tip(said) + svg.rectangle(
            left, y + 2, x(value) - left, step - 7, "fc0")))
        body.append(svg.text(x(value) + 6, y + 13, behind, "small clear"))
    return svg.Drawing(WIDTH, bottom + 10, title, body)


STAGES = {"attention_backward": "gradients"}
WORDS = {"inout": "W as [in, out]", "outin": "W as [out, in]", "packed": "W packed"}


def shape_words(b: Benchmark) -> str:
    """m512_k768_n2304_packed to 512 x 768 x 2304, W packed; h8_q128_... to h8, 128, d64."""
    if b.stage == "project":
        words = [" x ".join(str(b.number(letter)) for letter in "mkn")]
    else:
        q, kv = b.number("q"), b.number("kv")
        words = [f"h{b.number('h')}" + (f":{b.number('kvh')}" if b.number("kvh") else ""),
                 f"{q} x {kv}" if q != kv else f"{q}"]
        words += [f"d{b.number('d')}"] if b.number("d") else []
    words += [WORDS.get(part, part) for part in b.shape.split("_")
              if not re.fullmatch(r"(h|kvh|q|kv|d|m|k|n|b)\d+", part)]
    return ", ".join(words) + (f", {b.threads} threads" if b.threads > 1 else "")


def typed_words(b: Benchmark) -> str:
    return shape_words(b) + (f", {b.type}" if b.type != "f32" else "")


def percent_row(b: Benchmark) -> tuple[str, float, str, str]:
    value = b.counters["pct_peak"]
    return shape_words(b), value, f"{noise(b)}{value:.1f} %", told(b)


def by_bandwidth(room: Room) -> svg.Drawing | None:
    """Calls of a few tokens, which read every weight or key for little arithmetic."""
    rows = [(f"{b.stage} {shape_words(b)}", b.counters["pct_read"],
             f"{noise(b)}{b.counters['pct_read']:.0f} %",
             f"{b.shape}: {b.counters['bytes_per_second'] * 1e-9:.1f} GB/s")
            for b in room.of("", "pct_read") if b.default and "bytes_per_second" in b.counters]
    title = f"A few tokens, {room.name}: percent of the speed of reading their weights"
    return bars(title, rows, 120, mark=100) if rows else None


def by_threads(room: Room) -> svg.Drawing | None:
    rows = [(f"{STAGES.get(b.stage, b.stage)} {shape_words(b)}", 100 * b.counters["speedup"],
             f"{noise(b)}{100 * b.counters['speedup']:.0f} %",
             f"{b.shape}: {b.counters['speedup']:.2f} times one thread's speed")
            for b in room.of("", "speedup") if b.default]
    title = f"Several threads, {room.name}: speed beside one thread (100 %)"
    return bars(title, rows, 200, mark=100) if rows else None


def by_roof(room: Room, threads: int) -> svg.Drawing | None:
    """One query against a cache, beside what reading it and the arithmetic leave possible."""
    rows = [(f"{shape_words(dataclasses.replace(b, threads=1))}, {b.type}", b.counters["pct_roof"],
             f"{noise(b)}{b.counters['pct_roof']:.0f} %",
             f"{b.shape}: {b.counters['pct_roof']:.1f} % of the roof"
             + (f", {b.counters['speedup']:.2f} times one thread" if "speedup" in b.counters else ""))
            for b in room.of("", "pct_roof") if b.threads == threads]
    number = "one thread" if threads == 1 else f"{threads} threads"
    title = f"Decode, {room.name}, {number}: percent of the roof"
    return bars(title, rows, 100) if rows else None


def by_shape(room: Room, stage: str, title: str) -> svg.Drawing | None:
    """Bars of what the lines do not show."""
    rows = [percent_row(b) for b in room.of(stage, "pct_peak") if b.default and not b.series
            and b.threads == 1 and "pct_read" not in b.counters]
    return bars(f"{title}, {room.name}: percent of the FMA peak", rows, 100) if rows else None


def options(room: Room) -> svg.Drawing | None:
    rows = []
    for b in room.of("options", "pct_plain"):
        if "_seed" in b.shape:
            continue
        value = b.counters["pct_plain"]
        rows.append((b.label or b.shape, value, f"{noise(b)}{value:.0f} %",
                     f"{b.shape}: {value:.1f} % of the plain call's keys a second"))
    title = f"Modifiers, {room.name}: speed beside the plain call (100 %), in keys a second"
    return bars(title, rows, 160, mark=100) if rows else None


# Who belongs together has one colour.
MAKERS = (("by hand", "c4", "sgemm by hand"), ("pytorch", "c1", "PyTorch"),
          ("onnxruntime", "c2", "ONNX Runtime"), ("openvino", "c3", "OpenVINO"),
          ("oneDNN", "c5", "oneDNN"), ("MKL", "c6", "MKL"), ("OpenBLAS", "c7", "OpenBLAS"),
          ("AOCL", "c8", "AOCL-BLAS"))


def maker(peer: str) -> tuple[str, str]:
    return next(((colour, name) for start, colour, name in MAKERS if peer.startswith(start)),
                ("c8", peer))


def rivals(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that are compared with qkv, the closest first."""
    timed = [row for row in result["rows"] if row["state"] == "timed"
             and not row["peer"].startswith("qkv") and (row.get("ratio") or 0) > 0]
    return sorted(timed, key=lambda row: row["ratio"])


def ratio_words(row: dict[str, Any]) -> str:
    return (f"{row['peer']}: {row['ratio']:.2f} [{row.get('low', row['ratio']):.2f}, "
            f"{row.get('high', row['ratio']):.2f}]")


def legend(results: list[dict[str, Any]], y: float) -> list[str]:
    seen: dict[str, str] = {}
    for result in results:
        for row in rivals(result):
            colour, name = maker(row["peer"])
            seen.setdefault(name, colour)
    body, x = [], 4.0
    for name, colour in sorted(seen.items(), key=lambda pair: pair[1]):
        body += [svg.dot(x + 4, y - 4, colour, name), svg.text(x + 14, y, name, "small")]
        x += 34 + 6.6 * len(name)
    return body


def ratio_row(result: dict[str, Any], y: float, x: svg.Axis, right: float) -> list[str]:
    found = rivals(result)
    body = [svg.text(x.start - 10, y + 4, result["shape"], "end small")]
    if not found:
        return body + [svg.text(x.start + 6, y + 4, "no peer was measured", "soft small")]
    best = found[0]
    colour = maker(best["peer"])[0]
    body.append(svg.line(x(best.get("low", best["ratio"])), y, x(best.get("high", best["ratio"])), y,
                         f"s{colour}"))
    for row in reversed(found):
        size = 5.5 if row is best else 3.8
        body.append(svg.dot(x(row["ratio"]), y, maker(row["peer"])[0], ratio_words(row), size))
    return body + [svg.text(right + 8, y + 4, f"{best['ratio']:.2f}", "small"),
                   svg.text(right + 44, y + 4, best["peer"], "soft small")]


# What is drawn together, by the name of the drawing, with what its title begins with.
COMPARED = {"ratio": "Peers'", "gradients": "Attention and its gradients, peers'",
            "decode": "Decode, peers'"}
COMPARED_STAGES = {"learning": "gradients", "decode": "decode"}  # others: ratio


def ratios(found: Peers, threads: int, which: str) -> svg.Drawing | None:
    """A line a shape: each peer's time over qkv's. Right of 1 qkv is the faster one."""
    results = [r for r in found.at(threads) if COMPARED_STAGES.get(r["stage"], "ratio") == which]
    if not results:
        return None
    left = max(186.0, 20 + 6.1 * max(len(result["shape"]) for result in results))
    right, top, step = WIDTH - 222, 90.0, 20.0
    every = [row["ratio"] for result in results for row in rivals(result)] or [1.0]
    low = min(max(2.0 ** math.floor(math.log2(min(every))), 1 / 16), 0.5)
    high = max(min(2.0 ** math.ceil(math.log2(max(every))), 16.0), 4.0)
    x = svg.Axis(low, high, left, right, True)
    families: list[str] = []
    body: list[str] = []
    y = top
    for result in results:
        if families and result["family"] != families[-1]:
            y += 10
        families.append(result["family"])
        body += ratio_row(result, y, x, right)
        y += step
    marks, power = [], low
    while power <= high:
        marks.append(svg.line(x(power), top - 14, x(power), y - 6, "one" if power == 1 else "grid"))
        said = f"{power:g}" + ("+" if power == high and max(every) > high else "")
        marks.append(svg.text(x(power), top - 20, said, "soft small middle"))
        power *= 2
    number = "one thread" if threads == 1 else f"{threads} threads"
    title = f"{COMPARED[which]} time over qkv's, {number} (right of 1 qkv is faster)"
    head = [svg.text(0, 16, title, "title"), svg.text(right + 44, top - 20, "fastest peer", "soft small"),
            svg.rectangle(left, top - 14, right - left, y - top + 8, "panel", 4)]
    return svg.Drawing(WIDTH, y + 2, title, head + legend(results, 44) + marks + body)


def of_room(room: Room) -> list[svg.Drawing]:
    more = [by_shape(room, "attention", "Attention, other shapes"),
            by_shape(room, "attention_backward", "Gradients of attention"),
            by_shape(room, "learning", "Attention and its gradients"),
            by_shape(room, "project", "Projection"), by_bandwidth(room),
            *(by_roof(room, n) for n in sorted({b.threads for b in room.of("", "pct_roof")})),
            by_threads(room), options(room)]
    return [by_length(room, tier) for tier in tiers(room)] + [drawing for drawing in more if drawing]
