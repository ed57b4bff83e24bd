# SPDX-License-Identifier: Apache-2.0
"""Runs the legs that were asked for and sums them up. Started by tools/test."""

import argparse
import resource
import sys
import time

import build
import legs
import results


def arguments():
    names = [leg.name for leg in legs.LEGS]
    parser = argparse.ArgumentParser(
        prog="tools/test", description="Installs what is missing and runs every test.",
        epilog=f"Builds and logs stand in {build.shown(build.BASE)} ($QKV_BUILD_DIR).")
    parser.add_argument("legs", nargs="*", metavar="LEG", help="run these alone, in this order")
    parser.add_argument("--list", action="store_true", help="name the legs and stop")
    asked = parser.parse_args()
    for name in asked.legs:
        if name not in names:
            parser.error(f"there is no leg {name}; there are: {', '.join(names)}")
    return asked


def run(leg):
    """A leg's tally; a leg that this machine cannot run is one skip."""
    lacks = leg.lacks()
    if lacks:
        return results.Tally(skipped=[("all of it", f"this machine has no {', '.join(lacks)}")])
    try:
        return leg.run(leg)
    except (build.Failed, OSError) as failure:
        return results.Tally(failed=[str(failure)])


def processor():
    """Seconds of processor time that the programs started here have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def listed(title, lines):
    if lines:
        print(f"\n{title}:")
        for line in lines:
            print("  " + line)


def main():
    asked = arguments()
    if asked.list:
        for leg in legs.LEGS:
            print(f"{leg.name:12} {leg.what}")
        return 0
    by_name = {leg.name: leg for leg in legs.LEGS}
    chosen = [by_name[name] for name in asked.legs] or legs.LEGS
    start = time.monotonic()
    total = results.Tally()
    for leg in chosen:
        print(f"{leg.name:12} {leg.what}", flush=True)
        began, busy = time.monotonic(), processor()
        tally = run(leg)
        print(f"{'':12} {tally.line} in {time.monotonic() - began:.0f} s"
              f" ({processor() - busy:.0f} s of processor time)", flush=True)
        total.add(tally, leg.name + ": ")
    listed("Skipped", total.skips())
    listed("Failed", total.failed)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"\nCounted: each Check test, and each program that is not a Check suite, in"
          f" {minutes} min {seconds} s.\n\n{total.line}")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
