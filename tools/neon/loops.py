# SPDX-License-Identifier: Apache-2.0
"""The inner loops of an object file, found in its disassembly.

A loop is what a backward branch closes. Of those without another loop or a call inside, the one
with the most instructions of a kind (multiply-adds, maxima) is the one that counts; of several, the
shortest."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

OBJDUMP = "aarch64-linux-gnu-objdump"


class Wrong(Exception):
    """What went wrong, in one sentence."""


@dataclasses.dataclass(frozen=True)
class Loop:
    function: str
    start: int
    code: tuple[str, ...]

    def count(self, kind: str) -> int:
        return sum(line.split()[0] == kind for line in self.code)


FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S.*?)\s*(?://.*)?$")
BRANCH = re.compile(r"^(b|b\.\w+|cbn?z|tbn?z)\s.*?([0-9a-f]+) <[^>]*>$")


def functions(listing: str) -> dict[str, list[tuple[int, str]]]:
    """Every function's instructions and their addresses."""
    found: dict[str, list[tuple[int, str]]] = {}
    name = ""
    for line in listing.splitlines():
        heading, said = FUNCTION.match(line), INSTRUCTION.match(line)
        if heading:
            name = heading[1]
            found[name] = []
        elif said and name:
            found[name].append((int(said[1], 16), said[2].replace("\t", " ")))
    return found


def for_model(line: str) -> str:
    """An instruction as llvm-mca reads it: a branch, or an address of a constant, needs some target."""
    return re.sub(r"\b[0-9a-f]+ <[^>]*>$", "0", line)


def loops_of(name: str, code: list[tuple[int, str]]) -> list[Loop]:
    """The innermost loops without a call."""
    spans = []
    for address, line in code:
        branch = BRANCH.match(line)
        if branch and code[0][0] <= int(branch[2], 16) <= address:
            spans.append((int(branch[2], 16), address))
    inner = [span for span in spans if not any(
        other != span and span[0] <= other[0] and other[1] <= span[1] for other in spans)]
    made = [Loop(name, start, tuple(for_model(line) for at, line in code if start <= at <= end))
            for start, end in inner]
    return [loop for loop in made if not any(re.match(r"blr?\b", line) for line in loop.code)]


def hottest(path: Path, function: str, kind: str) -> Loop:
    """The loop that counts, in the functions of an object whose names begin so."""
    shown = subprocess.run([OBJDUMP, "-d", "--no-show-raw-insn", path], capture_output=True,
                           text=True, check=False)
    if shown.returncode:
        raise Wrong(f"{path}: {OBJDUMP} failed: {shown.stderr.strip()}.")
    return pick(shown.stdout, function, kind, str(path))


def pick(listing: str, function: str, kind: str, where: str) -> Loop:
    found = [loop for name, code in functions(listing).items() if name.startswith(function) and code
             for loop in loops_of(name, code) if loop.count(kind)]
    if not found:
        raise Wrong(f"{where}: no inner loop with {kind} in a function {function}*.")
    return max(found, key=lambda loop: (loop.count(kind), -len(loop.code)))
