# SPDX-License-Identifier: Apache-2.0
"""A little SVG: elements as text, axes, and the two looks of a drawing.

Elements say what they are by class. In the page their colours come from its style sheet, which
knows light and dark; a drawing that stands alone brings LIGHT with it, and a background.
"""

from __future__ import annotations

import dataclasses
import math
from html import escape
from typing import Any

# Okabe and Ito's colours, which people with any colour vision tell apart; darker where lines of
# them would be too pale on white, lighter where they would be too dark on black.
LIGHT = {
    "page": "#ffffff", "panel": "#f6f7f9", "line": "#d5d9e0", "text": "#1c2330", "soft": "#5c6675",
    "c0": "#0a5ea8", "c1": "#d55e00", "c2": "#00845f", "c3": "#a64d84", "c4": "#b07d00",
    "c5": "#4599c4", "c6": "#7a5230", "c7": "#6a4fb3", "c8": "#5c6675",
}
DARK = {
    "page": "#12161d", "panel": "#1a2029", "line": "#333c4a", "text": "#e8ecf2", "soft": "#9aa6b6",
    "c0": "#5aa9f0", "c1": "#ff8b3d", "c2": "#2cc79a", "c3": "#e08fc0", "c4": "#e8b93f",
    "c5": "#8fd0f5", "c6": "#c99a6f", "c7": "#ab96f0", "c8": "#9aa6b6",
}
SERIES = [name for name in LIGHT if name[0] == "c"]
FONT = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def style(colour: Any) -> str:
    """The style sheet of drawings; colour(name) says how a colour is written."""
    rules = [
        f"svg text {{ font-family: {FONT}; font-size: 12px; fill: {colour('text')}; }}",
        "svg .title { font-size: 14px; font-weight: 600; }",
        f"svg .soft {{ fill: {colour('soft')}; }}",
        "svg .small { font-size: 11px; }",
        "svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }",
        f"svg .halo {{ paint-order: stroke; stroke: {colour('panel')}; stroke-width: 3px; }}",
        f"svg .clear {{ paint-order: stroke; stroke: {colour('page')}; stroke-width: 4px; }}",
        f"svg .panel {{ fill: {colour('panel')}; }}",
        f"svg .grid {{ stroke: {colour('line')}; stroke-width: 1; fill: none; }}",
        f"svg .limit {{ stroke: {colour('soft')}; stroke-width: 1.5; stroke-dasharray: 2 3; }}",
        f"svg .one {{ stroke: {colour('text')}; stroke-width: 1.5; }}",
        f"svg .ring {{ stroke: {colour('panel')}; stroke-width: 1.5; }}",
        "svg .dashed { stroke-dasharray: 6 4; }",
        f"svg .track {{ fill: {colour('line')}; opacity: 0.55; }}",
    ]
    for name in SERIES:
        rules.append(f"svg .f{name} {{ fill: {colour(name)}; }} svg .s{name} {{ stroke: "
                     f"{colour(name)}; fill: none; stroke-width: 2.25; }}")
    return "\n".join(rules)


def attributes(values: dict[str, Any]) -> str:
    named = {key.rstrip("_").replace("_", "-"): value for key, value in values.items()}
    return "".join(
        f' {key}="{escape(f"{value:.6g}" if isinstance(value, float) else str(value))}"'
        for key, value in named.items())


def tag(name: str, content: str = "", **values: Any) -> str:
    return f"<{name}{attributes(values)}>{content}</{name}>" if content else \
        f"<{name}{attributes(values)}/>"


def text(x: float, y: float, said: str, kind: str = "") -> str:
    return tag("text", escape(said), x=x, y=y, class_=kind) if said else ""


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def rectangle(x: float, y: float, width: float, height: float, kind: str, rounded: float = 2) -> str:
    return tag("rect", x=x, y=y, width=max(width, 0.0), height=height, rx=rounded, class_=kind)


def tip(said: str) -> str:
    """What a browser shows under the pointer."""
    return tag("title", escape(said))


def dot(x: float, y: float, colour: str, said: str, radius: float = 4.5) -> str:
    return tag("circle", tip(said), cx=x, cy=y, r=radius, class_=f"f{colour} ring")


def path(points: list[tuple[float, float]], kind: str) -> str:
    said = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=said, class_=kind)


@dataclasses.dataclass
class Axis:
    """A scale from values to places; powers of two where it is logarithmic."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log2(low), math.log2(high), math.log2(value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)


@dataclasses.dataclass
class Drawing:
    """A finished drawing, to be put into the page or to stand alone."""

    width: float
    height: float
    name: str
    body: list[str]

    def svg(self, alone: bool = False) -> str:
        edge = 16 if alone else 0
        width, height = self.width + 2 * edge, self.height + 2 * edge
        head = f'viewBox="{-edge} {-edge} {width:g} {height:g}" role="img"'
        inner = tip(self.name) + "".join(self.body)
        if not alone:
            return f"<svg {head}>{inner}</svg>"
        sheet = tag("style", escape(style(LIGHT.__getitem__), quote=False))
        ground = tag("rect", x=-edge, y=-edge, width=width, height=height, fill=LIGHT["page"])
        return (f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
                f'width="{width:g}" height="{height:g}" {head}>'
                f"{sheet}{ground}{inner}</svg>\n")
