#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The answers of qkv attend have the same bytes for every number of threads, in every room.
Usage: threads.py QKV"""

import json
import struct

import command
from command import Case, npy, qkv, read


def noise(*shape):
    """Numbers that look random, the same in every run."""
    count, state, values = 1, 1, []
    for size in shape:
        count *= size
    for _ in range(count):
        state = state * 6364136223846793005 + 1442695040888963407 & 2 ** 64 - 1
        values.append((state >> 40) / 2 ** 23 - 1)
    return npy("<f4", repr(shape), struct.pack(f"<{count}f", *values))


class Threads(Case):
    def test_same_bytes(self):
        arguments = ["--causal", "--heads", "4", "--kv-heads", "2"]
        for name, shape in {"x": (300, 24), "wq": (24, 160), "wk": (24, 80), "wv": (24, 80)}.items():
            arguments += ["--" + name, self.file(name + ".npy", noise(*shape))]
        rooms = json.loads(self.fine(qkv("cpu", "--json")))["rooms"]
        for room in [name for name, has in rooms.items() if has["usable"]]:
            answers = set()
            for threads in ("1", "2", "3", "7"):
                with self.subTest(room=room, threads=threads):
                    names = [self.path(name) for name in ("o.npy", "l.npy", "a.npy")]
                    self.fine(qkv("attend", *arguments, "--isa", room, "--threads", threads,
                                  "--out", names[0], "--lse", names[1], "--weights", names[2]))
                    answers.add(tuple(map(read, names)))
            self.assertEqual(len(answers), 1, room)


if __name__ == "__main__":
    command.main()
