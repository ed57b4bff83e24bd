# SPDX-License-Identifier: Apache-2.0
"""qkv beside its peers: the same inputs, interleaved, one line a peer. See bench/peers/README.md."""

# Needs Python alone: help comes before anything is installed.

import argparse
from pathlib import Path

from . import native, shapes


def read():
    parse = argparse.ArgumentParser(prog="bench/peers/run", description=__doc__)
    parse.add_argument("--quick", action="store_true", help="a few shapes, few and short rounds")
    parse.add_argument("--stage", choices=shapes.STAGES,
                       help="only this (learning: gradients; decode: over a cache)")
    parse.add_argument("--shapes", metavar="REGEX", help="only shapes whose name matches")
    parse.add_argument("--peers", metavar="REGEX", help="only peers whose name matches (and qkv)")
    parse.add_argument("--threads", default="1,2", help="numbers of threads (default: 1,2)")
    parse.add_argument("--rounds", type=int, help="turns a peer (default: 15; quick: 7)")
    parse.add_argument("--turn", type=float, help="seconds a turn (default: 0.03; quick: 0.01)")
    parse.add_argument("--out", type=Path, default=native.HERE / "results", metavar="DIR",
                       help="where JSON and charts go (default: bench/peers/results)")
    parse.add_argument("--list", action="store_true", help="name shapes and peers, and stop")
    chosen = parse.parse_args()
    chosen.rounds = chosen.rounds or (7 if chosen.quick else 15)
    chosen.turn = chosen.turn or (0.01 if chosen.quick else 0.03)
    chosen.threads = [int(n) for n in chosen.threads.split(",")]
    return chosen


if __name__ == "__main__":
    read()
