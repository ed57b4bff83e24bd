# SPDX-License-Identifier: Apache-2.0
"""What llvm-mca's model of a core makes of a loop."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess

from loops import Loop, Wrong

ITERATIONS = 100
OLDEST, WANTED = 16, 19  # 16 has a model of every core; the figures of the documentation are 19's


@dataclasses.dataclass(frozen=True)
class Verdict:
    cycles: float  # one iteration
    busy: float    # percent of the time that the pipes of the multiply-adds work on some


def program() -> tuple[str, str]:
    """llvm-mca and its version: Debian's llvm-19, else the newest that is installed."""
    names = [f"llvm-mca-{WANTED}"] + [f"llvm-mca-{n}" for n in range(40, OLDEST - 1, -1)] + ["llvm-mca"]
    for name in filter(shutil.which, names):
        said = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"LLVM version ((\d+)[.\d]*)", said)
        if version and int(version[2]) >= OLDEST:
            return name, version[1]
    raise Wrong(f"llvm-mca {OLDEST} or newer is not installed (tools/install neon).")


def judge(mca: str, core: str, loop: Loop, kind: str = "fmla") -> Verdict:
    """Runs the loop often on the model of a core; kind: what counts as a multiply-add."""
    done = subprocess.run(
        [mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", f"-iterations={ITERATIONS}", "--json"],
        input="\n".join(loop.code) + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"{mca} cannot model the loop of {loop.function} on {core}: "
                    f"{done.stderr.strip().splitlines()[0] if done.stderr.strip() else 'no reason given'}.")
    try:
        region = json.loads(done.stdout)["CodeRegions"][0]
        cycles = region["SummaryView"]["TotalCycles"] / ITERATIONS
        use = region["ResourcePressureView"]["ResourcePressureInfo"]
    except (ValueError, KeyError, IndexError):
        raise Wrong(f"{mca} said something else than expected of {core}.") from None
    return Verdict(cycles, 100 * pipe_share(loop, use, kind) / cycles)


def pipe_share(loop: Loop, use: list[dict[str, float]], kind: str = "fmla") -> float:
    """The cycles that multiply-adds take of each pipe that takes them, on average. use tells of
    each instruction how many cycles it holds each resource."""
    held: dict[int, float] = {}
    for entry in use:
        at = int(entry["InstructionIndex"])
        if at < len(loop.code) and loop.code[at].split()[0] == kind:
            pipe = int(entry["ResourceIndex"])
            held[pipe] = held.get(pipe, 0.0) + entry["ResourceUsage"]
    return sum(held.values()) / len(held) if held else 0.0
