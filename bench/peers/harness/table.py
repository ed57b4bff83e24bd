# SPDX-License-Identifier: Apache-2.0
"""The table on the screen."""

from .summary import geometric_mean


def header(result):
    """Of what reads a cache, the bytes a second are told instead of flops."""
    rate = "GB/s" if result["bytes"] else "GFLOP/s"
    return (
        f"{'':28} {'median':>10} {rate:>8} {'% peak':>7} {'qkv is x times faster':>24} "
        f"{'error':>8} {'memory':>9}"
    )


def duration(seconds):
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def size(count):
    for unit, unit_size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= unit_size:
            return f"{count / unit_size:.1f} {unit}"
    return f"{count} B"


def ratio(line):
    if "ratio" not in line:
        return ""
    return f"{line['ratio']:.3f} [{line['low']:.3f}, {line['high']:.3f}]"


def table_line(line, count):
    """count: bytes of the cache that is read, or None."""
    if line["state"] != "timed":
        return f"  {line['peer']:26} {line['state']}: {line['reason']}"
    rate = count / line["median"] * 1e-9 if count else line["gflops"]
    return (
        f"  {line['peer']:26} {duration(line['median']):>10} {rate:8.1f} "
        f"{line['percent']:6.1f}% {ratio(line) if line['peer'] != 'qkv' else '':>24} "
        f"{line['error']:8.1e} {size(line['memory']):>9}"
        + (f"  ({line['noisy']} noisy)" if line["noisy"] else "")
    )


def by_speed(line):
    return line.get("median", float("inf"))


def block(result):
    """One shape at one number of threads."""
    threads = "1 thread" if result["threads"] == 1 else f"{result['threads']} threads"
    lines = [f"{result['shape']}, {threads}", header(result)]
    lines += [table_line(line, result["bytes"]) for line in sorted(result["rows"], key=by_speed)]
    return "\n".join(lines) + "\n"


def aim(verdict):
    if verdict["target"]:
        return f">= {verdict['target']}"
    return "low end >= 0.98" if verdict["never_behind"] else ""


MARKS = {True: "reached", False: "NOT REACHED", None: ""}


def conclusion(results):
    """qkv against the fastest peer of each shape, and the geometric means that matter."""
    lines = [
        f"{'qkv against the fastest peer':28} {'thr':>3} {'times faster':>22}  {'aim':16} {'':12}"
        f" {'error':>7}  fastest peer"
    ]
    judged = [(r, r["verdict"]) for r in results if r["verdict"]]
    for r, v in judged:
        lines.append(
            f"{r['shape']:28} {r['threads']:3} {ratio(v):>22}  {aim(v):16} "
            f"{MARKS[v['reached']]:12} {v['error_ratio']:6.2f}x{' ' if v['error_reached'] else '!'}"
            f" {v['fastest']}"
        )
    full = [v["ratio"] for r, v in judged if v["never_behind"] and r["stage"] == "attention"]
    if full:
        lines.append(
            f"Geometric mean, full mask at 128 tokens or more: {geometric_mean(full):.3f} "
            "(aim: 1.04)"
        )
    lines.append("error: qkv's largest error over the smallest of the peers' (aim: at most 1.2).")
    return "\n".join(lines)


def unavailable(remotes):
    """Peers that could not be had, with the reason."""
    missing = {r.peer.name: r.unavailable for r in remotes if r.unavailable}
    return "".join(f"unavailable: {name}: {reason}\n" for name, reason in missing.items())
