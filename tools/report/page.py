# SPDX-License-Identifier: Apache-2.0
"""The page: one HTML file that needs nothing else, in light and dark."""

from __future__ import annotations

from html import escape
from typing import Any

import charts
import svg
from read import Benchmark, Peers, Room


def variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


SHEET = f"""
:root {{ color-scheme: light dark; {variables(svg.LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(svg.DARK)} }} }}
body {{ margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 60rem; background: var(--page);
  color: var(--text); font: 15px/1.55 {svg.FONT}; }}
h1 {{ font-size: 1.7rem; margin: 0 0 .3rem; letter-spacing: -.01em; }}
h2 {{ font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 2rem 0 .5rem; }}
p, li {{ max-width: 46rem; }} .soft {{ color: var(--soft); }}
nav a {{ margin-right: 1.1rem; color: var(--c0); }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .8rem;
  margin: 1.4rem 0; }}
.tile {{ background: var(--panel); border-radius: 8px; padding: .8rem 1rem; }}
.tile b {{ display: block; font-size: 1.5rem; line-height: 1.3; }}
figure {{ margin: 1.4rem 0 2.2rem; overflow-x: auto; }}
svg {{ width: 100%; min-width: 40rem; height: auto; display: block; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }}
th, td {{ padding: .28rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }}
th {{ font-weight: 600; color: var(--soft); }} th:first-child, td:first-child {{ text-align: left; }}
td.name {{ text-align: left; }}
pre {{ background: var(--panel); border-radius: 8px; padding: .9rem 1.1rem; overflow-x: auto;
  font-size: 13px; }}
details summary {{ cursor: pointer; color: var(--c0); margin: .6rem 0; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }}
dt {{ color: var(--soft); }} dd {{ margin: 0; }}
"""


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def size(count: float) -> str:
    for unit, one in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count:.0f} B"


def table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
                    for row in rows)
    return (f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
            f"<tbody>{lines}</tbody></table></div>")


def counter(b: Benchmark, name: str, form: str) -> str:
    return form.format(b.counters[name]) if name in b.counters else ""


def benchmark_row(b: Benchmark) -> list[str]:
    stored = b.type if b.type != "f32" else ""
    name = f"{b.stage} {b.shape}" + "".join(f" ({more})" for more in (stored, b.tier, b.label) if more)
    if b.error:
        return [name, b.error] + [""] * 6
    workspace = [b.counters[name] for name in ("ws_shared", "ws_worker", "workspace_bytes")
                 if name in b.counters]
    share = counter(b, "pct_roof", "{:.1f} % of the roof") or counter(b, "pct_peak", "{:.1f} %") or counter(b, "pct_plain", "{:.1f} % of plain")
    return [name, str(b.threads),
            duration(b.seconds), counter(b, "GFLOPS", "{:.1f}"), share,
            f"{b.counters['bytes_per_second'] * 1e-9:.1f}" if "bytes_per_second" in b.counters else "",
            " + ".join(size(part) for part in workspace), "~" if b.noisy else ""]


def figure(drawing: svg.Drawing) -> str:
    return f"<figure>{drawing.svg()}</figure>"


def latency(room: Room) -> str:
    """How long single calls take, at best and at worst."""
    rows = [[charts.typed_words(b) if b.number("h") else b.shape, str(b.threads)]
            + [f"{b.counters[name]:.2f} µs" if name in b.counters else ""
               for name in ("p50", "p99", "p99.9", "max")] for b in room.of("latency")]
    head = ["single calls", "threads", "median", "99 %", "99.9 %", "the longest"]
    return f"<h3>Latency, {escape(room.name)}</h3>" + table(head, rows) if rows else ""


def room_section(room: Room) -> str:
    peak = room.context.get("fma_peak", "not recorded")
    read = room.context.get("memory_read", "not recorded")
    noisy = sum(b.noisy for b in room.benchmarks.values())
    said = (f"FMA peak {peak}; reading memory {read}; {len(room.benchmarks)} benchmarks"
            + (f", {noisy} of them disturbed while they were measured (~)" if noisy else "") + ".")
    head = ["benchmark", "threads", "time", "GFLOP/s", "of peak", "GB/s", "workspace", ""]
    every = table(head, [benchmark_row(b) for b in room.benchmarks.values()])
    return (f'<h2 id="{escape(room.name)}">{escape(room.name)}</h2><p class="soft">{escape(said)}</p>'
            + "".join(figure(drawing) for drawing in charts.of_room(room))
            + latency(room) + f"<details><summary>All figures of {escape(room.name)}</summary>{every}</details>")


def peer_row(result: dict[str, Any], row: dict[str, Any]) -> list[str]:
    name = f"{result['shape']}, {row['peer']}"
    if row["state"] != "timed":
        return [name, f"{row['state']}: {row.get('reason', '')}"] + [""] * 5
    ratio = "" if row["peer"] == "qkv" or not row.get("ratio") else charts.ratio_words(row).split(": ")[1]
    error, memory, percent = row.get("error"), row.get("memory"), row.get("percent")
    return [name, duration(row["median"]), f"{percent:.1f} %" if percent is not None else "", ratio,
            f"{error:.1e}" if error is not None else "", size(memory) if memory is not None else "",
            "~" if row.get("noisy") else ""]


def peers_section(found: Peers) -> str:
    machine = found.machine
    versions = {row["peer"]: row["version"] for r in found.results for row in r["rows"]
                if row.get("version")}
    parts = ['<h2 id="peers">Side by side with the peers</h2>', '<p class="soft">'
             + escape(f"Same inputs, interleaved, {machine.get('rounds', '?')} rounds; the ratio is "
                      "the median over rounds of a peer's time over qkv's, with its 95 % interval; "
                      "the error is the largest difference from NumPy in float64; memory is what a "
                      "call needs beside its inputs and outputs.") + "</p>"]
    head = ["shape, who", "median", "of peak", "times as long as qkv", "error", "memory", ""]
    for threads in found.thread_counts:
        drawn = [charts.ratios(found, threads, which) for which in charts.COMPARED]
        parts += [figure(drawing) for drawing in drawn if drawing]
        rows = [peer_row(result, row) for result in found.at(threads)
                for row in sorted(result["rows"], key=lambda row: row.get("median") or 1e9)]
        number = "one thread" if threads == 1 else f"{threads} threads"
        parts.append(f"<details><summary>All figures, {number}</summary>{table(head, rows)}</details>")
    parts.append("<details><summary>Versions</summary>"
                 + table(["who", "version"], [[k, v] for k, v in versions.items()]) + "</details>")
    return "".join(parts)


def cpu_words(rooms: list[Room], found: Peers | None) -> list[tuple[str, str]]:
    """What is known of the machine; the files say it, not the machine that draws."""
    said: list[tuple[str, str]] = []
    context = rooms[0].context if rooms else {}
    name = context.get("cpu") or (found.machine.get("cpu") if found else None)
    said.append(("CPU", str(name or "not recorded")))
    if "num_cpus" in context:
        said.append(("cores", f"{context['num_cpus']}, {context.get('mhz_per_cpu', '?')} MHz by the "
                              "system's word"))
    caches = [f"L{c['level']} {str(c['type']).lower()} {size(c['size'])}"
              for c in context.get("caches", []) if isinstance(c, dict)
              and {"level", "type", "size"} <= set(c)]
    if caches:
        said.append(("caches", ", ".join(caches)))
    for room in rooms:
        if "fma_peak" in room.context:
            said.append((f"FMA peak, {room.name}", str(room.context["fma_peak"])))
    if found and "system" in found.machine:
        said.append(("system", str(found.machine["system"])))
    version = context.get("qkv") or (found.machine.get("qkv") if found else None)
    date = str(context.get("date") or (found.machine.get("date") if found else ""))[:10]
    said.append(("qkv", f"{version or '?'}, measured {date or 'on an unknown day'}"))
    return said


def tiles(rooms: list[Room], found: Peers | None) -> str:
    """The figures to take home."""
    made = []
    for room in rooms:
        series = [b for b in room.of("attention", "pct_peak") if b.series and b.default]
        best = max(series, key=lambda b: b.counters["pct_peak"], default=None)
        if best:
            made.append((f"{best.counters['pct_peak']:.0f} %", f"of the {room.name} FMA peak: "
                         f"attention {charts.shape_words(best)}"))
    for threads in found.thread_counts if found else []:
        closest = [charts.rivals(r)[0]["ratio"] for r in found.at(threads) if charts.rivals(r)]
        if closest:
            ahead = sum(ratio >= 1 for ratio in closest)
            number = "one thread" if threads == 1 else f"{threads} threads"
            made.append((f"{ahead} of {len(closest)}", f"shapes at which qkv is ahead of the "
                         f"fastest peer, {number}"))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{escape(figure_)}</b>{escape(words)}</div>'
        for figure_, words in made) + "</div>" if made else ""


REPEAT = """meson setup build --buildtype=release && meson compile -C build
for room in avx512 avx2; do    # neon on AArch64; scalar everywhere
    build/bench/qkv-bench --isa $room --benchmark_out=$room.json --benchmark_out_format=json
done
bench/peers/run                # writes bench/peers/results/peers.json
tools/bench-report avx512.json avx2.json bench/peers/results/peers.json --out report.html"""

HOW = ("Percent of peak is of the room's own FMA peak, measured in the same process right before and "
       "after each repetition, times the threads. Attention counts 4 · queries · keys · head_dim "
       "flops a head, half of it if causal; packing is inside the time. ~ marks a figure that "
       "something else on the machine disturbed each time it was tried. The dotted line is the limit "
       "that the exponential leaves to the multiplications (docs/performance.md).")


def page(rooms: list[Room], found: Peers | None) -> str:
    links = [f'<a href="#{escape(room.name)}">{escape(room.name)}</a>' for room in rooms]
    links += ['<a href="#peers">peers</a>'] if found else []
    machine = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in cpu_words(rooms, found))
    sheet = SHEET + svg.style(lambda name: f"var(--{name})")
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>qkv: benchmarks</title><style>{sheet}</style></head><body>"
            '<h1>qkv: attention for CPUs, measured</h1>'
            f"<nav>{''.join(links)}<a href=\"#repeat\">how to repeat it</a></nav>"
            f"{tiles(rooms, found)}<dl>{machine}</dl><p class=\"soft\">{escape(HOW)}</p>"
            + "".join(room_section(room) for room in rooms)
            + (peers_section(found) if found else "")
            + f'<h2 id="repeat">How to repeat it</h2><pre>{escape(REPEAT)}</pre></body></html>\n')
