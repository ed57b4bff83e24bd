# SPDX-License-Identifier: Apache-2.0
"""Executed instructions, counted under qemu.

qemu tells which instructions stand in each block of code that it translates, and which block it is
about to run. Two runs that differ by one call differ by that call's instructions, start-up and
all."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path
from typing import IO, Iterable

from loops import Wrong

# A loop of the core is of no interest here, only what runs: any core with NEON will do.
QEMU = ["qemu-aarch64", "-cpu", "cortex-a53", "-L", "/", "-d", "in_asm,exec,nochain"]
INSTRUCTION = re.compile(r"0x([0-9a-f]+):\s+([0-9a-f]{8})\b")
BLOCK = re.compile(r"Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/")


@dataclasses.dataclass(frozen=True)
class Executed:
    instructions: int
    multiply_adds: int

    def __sub__(self, other: "Executed") -> "Executed":
        return Executed(self.instructions - other.instructions,
                        self.multiply_adds - other.multiply_adds)


def multiplies_and_adds(word: int) -> bool:
    """FMLA of four floats, by vector and by element."""
    return word & 0xFFE0FC00 == 0x4E20CC00 or word & 0xFFC0F400 == 0x4F801000


def tally(log: Iterable[str]) -> Executed:
    """Sums up qemu's log."""
    blocks: dict[int, tuple[int, int]] = {}
    runs: dict[int, int] = {}
    at = -1  # the block that is being listed
    for line in log:
        if line.startswith("Trace"):
            found = BLOCK.match(line)
            if found:
                start = int(found[1], 16)
                runs[start] = runs.get(start, 0) + 1
            at = -1
        elif line.startswith("IN:"):
            at = 0
        elif at >= 0 and line.startswith("0x"):
            found = INSTRUCTION.match(line)
            if found:
                at = at or int(found[1], 16)
                known = blocks.get(at, (0, 0)) if int(found[1], 16) != at else (0, 0)
                blocks[at] = (known[0] + 1, known[1] + multiplies_and_adds(int(found[2], 16)))
    lost = [start for start in runs if start not in blocks]
    if lost or not runs:
        raise Wrong("qemu-aarch64 logs in a form that is not known here: "
                    + (f"a block at {lost[0]:#x} ran that it did not list." if lost else "no blocks."))
    return Executed(sum(n * blocks[start][0] for start, n in runs.items()),
                    sum(n * blocks[start][1] for start, n in runs.items()))


def run(program: Path, arguments: list[str]) -> Executed:
    try:
        with subprocess.Popen([*QEMU, program, *arguments], stderr=subprocess.PIPE, text=True,
                              errors="replace") as process:
            log: IO[str] | None = process.stderr
            found = tally(log or [])
    except FileNotFoundError:
        raise Wrong("qemu-aarch64 is not installed (tools/install cross).") from None
    if process.returncode:
        raise Wrong(f"{program} {' '.join(arguments)} failed under qemu-aarch64 "
                    f"(exit status {process.returncode}).")
    return found


def one_call(program: Path, *shape: int) -> Executed:
    """What one call executes: the difference between two calls and one."""
    words = [str(number) for number in shape]
    return run(program, words + ["2"]) - run(program, words + ["1"])
