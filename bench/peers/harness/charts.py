# SPDX-License-Identifier: Apache-2.0
"""Charts of a comparison, PNG and SVG: percent of the FMA peak, and how many times faster qkv is;
one panel a family of shapes, one line a peer. Also from a JSON of an earlier run:
python -m harness.charts peers.json FOLDER."""

import json
import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

# Who belongs together has one colour; within it, markers tell them apart.
COLOURS = (
    ("qkv", "#000000"),
    ("pytorch", "#d62728"),
    ("onnxruntime", "#1f77b4"),
    ("openvino", "#9467bd"),
    ("by hand", "#ff7f0e"),
    ("oneDNN", "#2ca02c"),
    ("MKL", "#8c564b"),
    ("OpenBLAS", "#e377c2"),
    ("AOCL", "#17becf"),
)
MARKERS = "osv^Dx*P"
COLUMNS = 4
TICKS = (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64)


class Measure:
    def __init__(self, name, field, title, logarithmic):
        self.name, self.field, self.title, self.logarithmic = name, field, title, logarithmic


MEASURES = (
    Measure("peak", "percent", "percent of FMA peak", False),
    Measure("ratio", "ratio", "times as long as qkv, with the 95 % interval (above 1: qkv is faster)", True),
)


def colour_of(name):
    return next(colour for start, colour in COLOURS if name.startswith(start))


def styles(results):
    """Colour, marker and width of each peer, in the order in which they appear."""
    made, seen = {}, {}
    for result in results:
        for row in result["rows"]:
            name = row["peer"]
            if name not in made:
                colour = colour_of(name)
                index = seen[colour] = seen.get(colour, -1) + 1
                mine = name.startswith("qkv")
                made[name] = {
                    "color": colour,
                    "marker": MARKERS[index],
                    "linewidth": 2.5 if mine else 1.0,
                    "linestyle": "--" if mine and index else "-",
                    "markersize": 5,
                    "zorder": 3 if mine else 2,
                }
    return made


def points_of(name, results, measure):
    """Where a peer's line goes: place, value, and how far the 95 % interval reaches to each side."""
    for x, result in enumerate(results):
        for row in result["rows"]:
            if row["peer"] == name and measure.field in row:
                y = row[measure.field]
                low, high = (row["low"], row["high"]) if measure.field == "ratio" else (y, y)
                yield x, y, max(y - low, 0), max(high - y, 0)


def draw_panel(axes, family, results, measure, style):
    lengths = [result.get("length") or 0 for result in results]
    growing = all(a < b for a, b in zip(lengths, lengths[1:]))  # else a line would mean nothing
    for name, look in style.items():
        if not growing:
            look = {**look, "linestyle": "none"}
        points = list(points_of(name, results, measure))
        if points:
            x, y, below, above = zip(*points)
            axes.errorbar(x, y, (below, above), label=name, elinewidth=0.8, capsize=2, **look)
    axes.set_title(family, fontsize=10)
    labels = [result.get("label", result["shape"]) for result in results]
    axes.set_xticks(range(len(results)), labels, fontsize=8)
    axes.margins(x=0.08)
    axes.grid(axis="y", alpha=0.3)
    if measure.logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        low, high = min(low, 0.9), max(high, 2.1)
        axes.set_ylim(low, high)
        axes.set_yticks([tick for tick in TICKS if low <= tick <= high])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.axhline(1, color=COLOURS[0][1], linewidth=1)
    else:
        axes.set_ylim(0, 100)


def by_family(results):
    families = {}
    for result in results:
        families.setdefault(result["family"], []).append(result)
    return families


def draw_chart(machine, results, threads, measure, folder):
    families, style = by_family(results), styles(results)
    rows = math.ceil((len(families) + 1) / COLUMNS)
    figure, grid = pyplot.subplots(
        rows, COLUMNS, figsize=(4 * COLUMNS, 3.4 * rows), squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    handles = {}
    for axes, (family, members) in zip(panels, families.items()):
        draw_panel(axes, family, members, measure, style)
        handles |= dict(reversed(pair) for pair in zip(*axes.get_legend_handles_labels()))
    for axes in panels[len(families) :]:
        axes.axis("off")
    panels[len(families)].legend(handles.values(), handles, loc="center", fontsize=8, ncols=2)
    number = "one thread" if threads == 1 else f"{threads} threads"
    figure.suptitle(f"{measure.title}, float32 unless a panel says otherwise, {number}, "
                    f"{machine['cpu']}, {machine['date']}")
    for kind in ("png", "svg"):
        figure.savefig(folder / f"{measure.name}-{threads}.{kind}", dpi=110)
    pyplot.close(figure)


def draw(machine, results, folder):
    for threads in sorted({result["threads"] for result in results}):
        members = [result for result in results if result["threads"] == threads]
        for measure in MEASURES:
            draw_chart(machine, members, threads, measure, folder)


def main():
    saved = json.loads(Path(sys.argv[1]).read_text())
    draw(saved["machine"], saved["results"], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
