# SPDX-License-Identifier: Apache-2.0
"""The JSON of the benchmarks and of bench/peers/run, checked and brought into one form."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any, Iterable


class Wrong(Exception):
    """What is wrong with an input, in one sentence."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One line of a room's benchmarks. Its name is stage[/exp:tier]/type/room/shape[/threads:N]."""

    stage: str
    tier: str  # of the exponential; "" where the name has none
    type: str  # f32, or what a cache stores
    shape: str
    threads: int
    seconds: float
    label: str
    counters: dict[str, float]
    error: str

    @property
    def noisy(self) -> bool:
        return self.counters.get("noisy", 0) > 0

    @property
    def causal(self) -> bool:
        return self.shape.endswith("_causal")

    @property
    def default(self) -> bool:
        """With the exponential that a call has if nobody chooses another."""
        return self.tier in ("", "sleef_u10")

    def number(self, letter: str) -> int:
        """The number behind a letter of the shape's name: of h8_q64_kv64_d32, 32 behind d."""
        found = re.search(rf"(?:^|_){letter}(\d+)(?:_|$)", self.shape)
        return int(found[1]) if found else 0

    @property
    def series(self) -> bool:
        """One of the calls that differ in nothing but their length, a power of two."""
        return bool(self.stage == "attention" and self.threads == 1
                    and re.fullmatch(r"h8_q(\d+)_kv\1_d(64|128)(_causal)?", self.shape)
                    and self.number("q").bit_count() == 1 and self.number("q") > 8)


@dataclasses.dataclass
class Room:
    """All benchmarks of one instruction set."""

    name: str
    context: dict[str, Any]
    benchmarks: dict[str, Benchmark]

    def of(self, stage: str, counter: str = "") -> list[Benchmark]:
        """The benchmarks of a stage ("": of all) that worked and have the counter."""
        return [b for b in self.benchmarks.values() if stage in ("", b.stage) and not b.error
                and (not counter or counter in b.counters)]


@dataclasses.dataclass
class Peers:
    """What bench/peers/run left: its machine, and a result for each shape and number of threads."""

    machine: dict[str, Any]
    results: list[dict[str, Any]]

    def at(self, threads: int) -> list[dict[str, Any]]:
        return [r for r in self.results if r["threads"] == threads]

    @property
    def thread_counts(self) -> list[int]:
        return sorted({r["threads"] for r in self.results})


SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
NOT_COUNTERS = {"family_index", "per_family_instance_index", "repetitions", "repetition_index",
                "threads", "iterations", "real_time", "cpu_time"}


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def benchmark(path: Path, entry: Any, otherwise: str) -> tuple[str, Benchmark]:
    """The room of an entry (otherwise: where its name has none), and what it says."""
    name = entry.get("name") if isinstance(entry, dict) else None
    found = re.fullmatch(r"(\w+(?:/[a-z_]+)?)(?:/exp:(\w+))?(?:/((?:f32|f16|bf16|i8)(?::\w+)?)/(\w+))?/([^/]+)(?:/threads:(\d+))?",
                         str(name))
    room = (found[4] or otherwise) if found else ""
    if not found or not room:
        raise Wrong(f"{path}: a benchmark is called {name!r}, and not stage/type/room/shape.")
    error = str(entry.get("error_message", "failed")) if entry.get("error_occurred") else ""
    time, unit = entry.get("real_time"), entry.get("time_unit")
    if not error and (not is_number(time) or time < 0 or unit not in SECONDS):
        raise Wrong(f"{path}: {name} has no time.")
    counters = {k: float(v) for k, v in entry.items() if k not in NOT_COUNTERS and is_number(v)}
    return room, Benchmark(
        stage=found[1], tier=found[2] or "", type=found[3] or "f32", shape=found[5],
        threads=int(found[6] or 1),
        seconds=0.0 if error else time * SECONDS[unit], label=str(entry.get("label", "")),
        counters=counters, error=error)


def add_rooms(rooms: dict[str, Room], path: Path, said: dict[str, Any]) -> None:
    """Sorts a file's benchmarks by room; of two with one name the later file's counts."""
    context = said["context"] if isinstance(said.get("context"), dict) else {}
    entries = said["benchmarks"]
    if not isinstance(entries, list) or not entries:
        raise Wrong(f"{path}: holds no benchmarks (did the filter leave any?).")
    for entry in entries:
        if isinstance(entry, dict) and entry.get("run_type", "iteration") != "iteration":
            continue  # means and medians of repetitions
        name, found = benchmark(path, entry, str(context.get("room", "")))
        room = rooms.setdefault(name, Room(name, {}, {}))
        room.context = context
        room.benchmarks[entry["name"]] = found


FIGURES = ("ratio", "low", "high", "percent", "error", "memory", "noisy")


def check_row(path: Path, shape: str, row: Any) -> None:
    if not isinstance(row, dict) or "peer" not in row or "state" not in row:
        raise Wrong(f"{path}: {shape} has a row without its peer's name and state.")
    if row["state"] == "timed" and not is_number(row.get("median")):
        raise Wrong(f"{path}: {shape}: {row['peer']} is timed but has no median.")
    for key in FIGURES:
        if row.get(key) is not None and not is_number(row[key]):
            raise Wrong(f"{path}: {shape}: the {key} of {row['peer']} is no number.")


def check_result(path: Path, result: Any) -> None:
    if not isinstance(result, dict) or not isinstance(result.get("shape"), str):
        raise Wrong(f"{path}: a result has no shape.")
    for key, kind in (("family", str), ("stage", str), ("threads", int), ("rows", list)):
        if not isinstance(result.get(key), kind):
            raise Wrong(f"{path}: {result['shape']} has no {key}.")
    for row in result["rows"]:
        check_row(path, result["shape"], row)


def peers(path: Path, said: dict[str, Any]) -> Peers:
    if not isinstance(said["results"], list) or not said["results"]:
        raise Wrong(f"{path}: holds no results.")
    for result in said["results"]:
        check_result(path, result)
    machine = said.get("machine")
    return Peers(machine if isinstance(machine, dict) else {}, said["results"])


def load(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Wrong(f"{path}: cannot be read: {error.strerror}.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise Wrong(f"{path}: is not JSON: {error}.") from None
    if not isinstance(said, dict) or not ("benchmarks" in said or "results" in said):
        raise Wrong(f"{path}: is neither the JSON of qkv-bench nor that of bench/peers/run.")
    return said


def files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise Wrong(f"{path}: holds no JSON file.")
        found += inside
    return found


# The order of reading: the widest first.
ROOMS = ("avx512", "avx2", "neon", "scalar")


def read(paths: Iterable[Path]) -> tuple[list[Room], Peers | None]:
    rooms: dict[str, Room] = {}
    found: Peers | None = None
    for path in files(paths):
        said = load(path)
        if "benchmarks" in said:
            add_rooms(rooms, path, said)
        else:
            found = peers(path, said)
    known = [rooms[name] for name in ROOMS if name in rooms]
    return known + [room for name, room in rooms.items() if name not in ROOMS], found
