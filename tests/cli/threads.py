#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The answers of qkv attend, and the weights that qkv train learns, have the same bytes for every
number of threads, in every room.
Usage: threads.py QKV"""

import json
import os
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
    def rooms(self):
        rooms = json.loads(self.fine(qkv("cpu", "--json")))["rooms"]
        return [name for name, has in rooms.items() if has["usable"]]

    def test_attend(self):
        arguments = ["--causal", "--heads", "4", "--kv-heads", "2"]
        for name, shape in {"x": (300, 24), "wq": (24, 160), "wk": (24, 80), "wv": (24, 80)}.items():
            arguments += ["--" + name, self.file(name + ".npy", noise(*shape))]
        for room in self.rooms():
            answers = set()
            for threads in ("1", "2", "3", "7"):
                with self.subTest(room=room, threads=threads):
                    names = [self.path(name) for name in ("o.npy", "l.npy", "a.npy")]
                    self.fine(qkv("attend", *arguments, "--isa", room, "--threads", threads,
                                  "--out", names[0], "--lse", names[1], "--weights", names[2]))
                    answers.add(tuple(map(read, names)))
            self.assertEqual(len(answers), 1, room)

    def test_train(self):
        """All that is left behind, the optimizer's means included. The arrays are large enough
        for every kernel to be divided."""
        arrays = ["--x", self.file("x.npy", noise(16, 80, 24)),
                  "--target", self.file("y.npy", noise(16, 80, 40)), "--heads", "2"]
        for room in self.rooms():
            for task in ([], arrays):
                learned = set()
                for threads in ("1", "2") if command.WRAPPER else ("1", "2", "5"):
                    with self.subTest(room=room, threads=threads, task=task[:1]):
                        self.fine(qkv("train", *task, "--isa", room, "--threads", threads,
                                      "--steps", "3", "--batch", "8", "--out", self.path("w")))
                        learned.add(tuple(read(os.path.join(self.path("w"), name))
                                          for name in sorted(os.listdir(self.path("w")))))
                self.assertEqual(len(learned), 1, room)


if __name__ == "__main__":
    command.main()
