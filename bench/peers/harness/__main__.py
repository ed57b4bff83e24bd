# SPDX-License-Identifier: Apache-2.0
"""The comparison: which shapes and peers, the rounds, the tables."""

import json
import platform
import re
import sys
import time

from . import charts, clock, native, options, register, rounds, shapes, summary, table
from .remote import Remote


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
    chosen = options.read()
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
