# SPDX-License-Identifier: Apache-2.0
"""qkv beside its peers: the same inputs, interleaved, one line a peer. See README.md."""

import argparse
import json
import platform
import re
import sys
import time
from pathlib import Path

from . import charts, clock, native, register, rounds, shapes, summary, table
from .remote import Remote


def options():
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


def chosen_shapes(chosen):
    wanted = [s for s in shapes.SHAPES if not chosen.stage or s.stage == chosen.stage]
    if chosen.shapes:
        wanted = [shape for shape in wanted if re.search(chosen.shapes, shape.name)]
    elif chosen.quick:
        wanted = [shape for shape in wanted if shape.name in shapes.QUICK]
    return wanted


def chosen_peers(chosen, wanted):
    return [
        peer
        for peer in register.peers()
        if any(peer.takes(shape) for shape in wanted)
        and (not chosen.peers or peer.name.startswith("qkv") or re.search(chosen.peers, peer.name))
    ]


def cpu_name():
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.lower().startswith(("model name", "cpu model")):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def describe(chosen, library):
    empty = native.bound(library.native_nothing, 0)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "qkv": library.qkv_version().decode(),
        "rounds": chosen.rounds,
        "turn_seconds": chosen.turn,
        "peak_gflops": library.native_peak(library.native_vector_bytes()),
        "empty_call_seconds": min(clock.seconds_of(empty, 1000) for _ in range(20)),
    }


def announce(machine):
    print(f"{machine['cpu']}, FMA peak {machine['peak_gflops']:.0f} GFLOP/s a core; "
          f"qkv {machine['qkv']}; {machine['rounds']} rounds of {machine['turn_seconds']} s; "
          f"an empty call takes {machine['empty_call_seconds'] * 1e6:.2f} us\n")


def compare(chosen, wanted, peers, threads):
    """The results of all shapes at one number of threads, printed as they come."""
    remotes = [Remote(peer, threads) for peer in peers]
    print(table.unavailable(remotes), flush=True)
    ready = [remote for remote in remotes if not remote.unavailable]
    try:
        for shape in wanted:
            entries = rounds.compete(shape, ready, chosen.rounds, chosen.turn)
            result = summary.result(shape, threads, entries)
            result["unavailable"] = {r.peer.name: r.unavailable for r in remotes if r.unavailable}
            print(table.block(result), flush=True)
            yield result
    finally:
        for remote in remotes:
            remote.close()


def save(folder, machine, results):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "peers.json", "w") as file:
        json.dump({"machine": machine, "results": results}, file, indent=1)


def main():
    chosen = options()
    wanted = chosen_shapes(chosen)
    if not wanted:
        sys.exit("no shape has such a name")
    peers = chosen_peers(chosen, wanted)
    if chosen.list:
        print(*(item.name for item in (*wanted, *peers)), sep="\n")
        return
    native.build()
    machine = describe(chosen, native.open_library())
    announce(machine)
    results = []
    for threads in chosen.threads:
        for result in compare(chosen, wanted, peers, threads):
            results.append(result)
            save(chosen.out, machine, results)
    print(table.conclusion(results))
    charts.draw(machine, results, chosen.out)
    print(f"\nJSON and charts are in {chosen.out}; a page of them: "
          f"tools/bench-report {chosen.out}/peers.json")


if __name__ == "__main__":
    main()
