#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""qkv party: what it tells agrees with the double-precision values in its file; the file is
found, and a broken one is refused. Usage: party.py QKV party.qkvp"""

import os
import re
import shutil
import struct
import unittest

import command
from command import Case, npy, qkv, read

DATA = command.arguments[1]
HEADER = 2048

# The rounding of float32 over these sizes; far below what a wrong step would make.
CLOSE = 2e-5


class File:
    """The container, read with as little code as possible."""

    def __init__(self, path):
        data = read(path)
        self.tokens, self.heads, self.arrays, self.shapes, self.meta = [], [], {}, {}, {}
        for line in data[:HEADER].decode().splitlines():
            word, *rest = line.split(" ")
            if word == "token":
                self.tokens.append(" ".join(rest[1:]))
            elif word == "head":
                self.heads.append((int(rest[1]), " ".join(rest[2:])))
            elif word == "meta":
                self.meta[rest[0]] = " ".join(rest[1:])
            elif word == "array":
                self.take(data, *rest)

    def take(self, data, name, dtype, ndim, *numbers):
        *shape, offset, size = map(int, numbers)
        assert len(shape) == int(ndim)
        code = {"f32": "f", "f64": "d"}[dtype]
        part = data[offset:offset + size]
        self.arrays[name] = struct.unpack(f"<{size // struct.calcsize(code)}{code}", part)
        self.shapes[name] = tuple(shape)

    def f32(self, name, shape=None):
        values = self.arrays[name]
        return npy("<f4", repr(shape or self.shapes[name]), struct.pack(f"<{len(values)}f", *values))


class Party(Case):
    @classmethod
    def setUpClass(cls):
        cls.file_ = File(DATA)
        cls.done = qkv("party")
        cls.text = cls.done.stdout

    def room_lines(self):
        """{room: its line after the name}"""
        table = self.text.split("largest difference")[1]
        return dict(line.split(maxsplit=1) for line in table.splitlines()
                    if re.match(r"  (scalar|avx2|avx512|neon) ", line))

    def test_fine(self):
        self.fine(self.done)
        self.assertTrue(all(len(line) <= 90 for line in self.text.splitlines()))

    def test_guests(self):
        self.assertIn(f'"{self.file_.meta["sentence"]}"', self.text)
        guests = self.text.split("Guests:")[1].split("(")[0]
        self.assertEqual(guests.split(), self.file_.tokens)
        for number, caption in self.file_.heads:
            self.assertIn(f"  Head {number}: {caption}\n", self.text)

    def test_links(self):
        """The links told are the strongest ones between words, with their weights."""
        tokens = self.file_.tokens
        n, weights = len(tokens), self.file_.arrays["weights"]
        words = [i for i, token in enumerate(tokens) if not token.startswith("[")]
        for h, (number, caption) in enumerate(self.file_.heads):
            expected = sorted(((weights[(h * n + i) * n + j], tokens[i], tokens[j])
                               for i in words for j in words if i != j), reverse=True)
            part = self.text.split(f"Head {number}: {caption}\n")[1].split("\n\n")[0]
            told = re.findall(r"^ +(\S+)(?: \(\w+\))? +listens to +(\S+)(?: \(\w+\))? +(\d+) %$",
                              part, re.MULTILINE)
            self.assertEqual(len(told), 4)
            for (a, b, percent), (weight, i, j) in zip(told, expected):
                self.assertEqual((a, b), (i, j))
                self.assertAlmostEqual(float(percent), 100 * weight, delta=0.51)

    def test_rooms(self):
        """Every room has its line: a time and small differences, or why it did not run."""
        self.assertEqual(list(self.room_lines()), ["scalar", "avx2", "avx512", "neon"])
        ran = 0
        for room, line in self.room_lines().items():
            if line.startswith("not "):
                continue
            steps, fused, *differences = map(float, line.split())
            ran += 1
            self.assertEqual(len(differences), 5, room)
            self.assertGreater(min(steps, fused), 0, room)
            self.assertLess(max(differences), CLOSE, room)
        self.assertGreaterEqual(ran, 1)

    def test_overrides(self):
        self.text = self.fine(qkv("party", env={"QKV_CPU_MAX": "scalar"}))
        for room, line in self.room_lines().items():
            self.assertEqual(line.startswith("not "), room != "scalar", line)

    def test_head(self):
        for number, caption in self.file_.heads:
            text = self.fine(qkv("party", "--head", number))
            self.assertIn(f"Head {number}: {caption}\n", text)
            self.assertIn(f"Head {number} as a map", text)
            self.assertEqual(len(re.findall(r"^  Head", text, re.MULTILINE)), 1)

    def test_map(self):
        """The map has a row for each token, and is darkest where the weight is largest."""
        ramp = " .:-=+*#%@"
        n, weights = len(self.file_.tokens), self.file_.arrays["weights"]
        rows = re.findall(r"^ *(\S+) \|(.*)\|$", self.text, re.MULTILINE)
        self.assertEqual([label for label, _ in rows], self.file_.tokens)
        largest = max(weights[: n * n])
        for i, (_, cells) in enumerate(rows):
            self.assertEqual(len(cells), 3 * n)
            for j in range(n):
                level = 10 * weights[i * n + j] / largest
                if abs(level - round(level)) > 1e-3:
                    self.assertEqual(cells[3 * j], ramp[min(9, int(level))], (i, j))

    def same(self, path, name):
        """A file of float32 holds the array `name` of the file."""
        data = read(path)
        start = 10 + struct.unpack("<H", data[8:10])[0]
        values = struct.unpack(f"<{(len(data) - start) // 4}f", data[start:])
        expected = self.file_.arrays[name]
        self.assertEqual(len(values), len(expected))
        for i, (a, b) in enumerate(zip(values, expected)):
            self.assertLess(abs(a - b), CLOSE, f"{name}[{i}]: {a}, expected {b}")

    def test_attend(self):
        """qkv attend on the same arrays, head by head and in every room that ran."""
        rooms = [room for room, line in self.room_lines().items() if not line.startswith("not ")]
        heads, d_model, dim = self.file_.shapes["wq"]
        arguments = ["--x", self.file("x.npy", self.file_.f32("x"))]
        for letter in "qkv":
            # [heads, d_model, dim] to [d_model, heads * dim]
            w = self.file_.arrays["w" + letter]
            joined = [w[(h * d_model + i) * dim + c] for i in range(d_model)
                      for h in range(heads) for c in range(dim)]
            self.file_.arrays["joined"] = joined
            arguments += ["--w" + letter, self.file(f"w{letter}.npy", self.file_.f32(
                "joined", (d_model, heads * dim)))]
            bias = self.file_.f32("b" + letter, (heads * dim,))
            arguments += ["--b" + letter, self.file(f"b{letter}.npy", bias)]
        o = self.file_.arrays["o"]
        n = len(self.file_.tokens)
        self.file_.arrays["side by side"] = [o[(h * n + t) * dim + c] for t in range(n)
                                             for h in range(heads) for c in range(dim)]
        for room in rooms:
            with self.subTest(room):
                paths = [self.path(name) for name in ("o.npy", "a.npy", "l.npy")]
                self.fine(qkv("attend", *arguments, "--heads", heads, "--isa", room, "--scale",
                              self.file_.meta["scale"], "--out", paths[0], "--weights", paths[1],
                              "--lse", paths[2]))
                for path, name in zip(paths, ("side by side", "weights", "lse")):
                    self.same(path, name)


class Data(Case):
    """Where the file is looked for, and what is said of one that is broken."""

    def given(self, data):
        return qkv("party", env={"QKV_DATA": self.file("party.qkvp", data)})

    def test_environment(self):
        """$QKV_DATA wins, and what it names is what is read."""
        data = read(DATA).replace(b"old book but she", b"old boot but she")
        self.assertIn("her old boot but", self.fine(self.given(data)))

    def test_missing(self):
        done = qkv("party", env={"QKV_DATA": self.path("nothing")})
        self.complains(done, 1, self.path("nothing"), "No such file")

    def test_directory(self):
        done = qkv("party", env={"QKV_DATA": self.folder})
        self.complains(done, 1, self.folder, "directory")

    def test_moved(self):
        """A command with its share folder beside it may stand anywhere; one alone says so."""
        if command.WRAPPER:
            self.skipTest("under an emulator /proc/self/exe may be the emulator")
        for folder in ("bin", "share/qkv"):
            os.makedirs(self.path(folder))
        built = os.path.dirname(os.path.abspath(command.arguments[0]))
        libraries = os.path.join(os.path.dirname(built), "src")
        env = {"LD_LIBRARY_PATH": libraries}
        moved = shutil.copy(command.arguments[0], self.path("bin"))
        command.arguments[0], kept = moved, command.arguments[0]
        try:
            alone = qkv("party", env=env)
            shutil.copy(DATA, self.path("share/qkv"))
            with_data = qkv("party", env=env)
        finally:
            command.arguments[0] = kept
        self.fine(with_data)
        if alone.returncode != 0:
            self.complains(alone, 1, "party.qkvp: is neither beside the command nor in")

    def test_wrong_values(self):
        """Numbers that disagree with the file's own are a failure, told for each room."""
        data = bytearray(read(DATA))
        place = re.search(rb"array weights f64 3 \d+ \d+ \d+ (\d+)", bytes(data))
        offset = int(place.group(1))
        data[offset:offset + 8] = struct.pack("<d", 0.5)
        done = self.given(bytes(data))
        self.assertEqual(done.returncode, 1)
        self.assertIn("qkv: scalar: is off by", done.stderr)
        self.assertIn("from double precision", done.stderr)

    def test_broken(self):
        good = read(DATA)
        broken = {
            "empty": (b"", "QKVPARTY"),
            "other": (b"\x93NUMPY" + good, "QKVPARTY"),
            "version": (good.replace(b"QKVPARTY 1", b"QKVPARTY 2"), "version"),
            "no length": (b"QKVPARTY 1 x\n", "header"),
            "cut in the header": (good[:1000], "header"),
            "cut in the last array": (good[:-8], "not where it must be"),
            "half": (good[: len(good) // 2], "not where it must be"),
            "no token": (good.replace(b"token 3", b"taken 3"), "token"),
            "no head": (good.replace(b"\nhead 2", b"\nhand 2"), "head"),
            "many tokens": (good.replace(b"token 0", b"token 99"), "token"),
            "no array": (good.replace(b"array lse", b"array Lse"), "missing"),
            "dtype": (good.replace(b"array x f32", b"array x f64"), "shape"),
            "shape": (good.replace(b"array wk f32 3 4", b"array wk f32 3 5"), "shape"),
            "huge": (good.replace(b"array x f32 2 16 384", b"array x f32 2 99999999 384"), "shape"),
            "no model": (good.replace(b"meta model", b"meta mode_"), "model"),
            "offset": (good.replace(b"384 2048 24576", b"384 2052 24576"), "not where it must be"),
            "size": (good.replace(b"384 2048 24576", b"384 2048 24572"), "not where it must be"),
            "zeros": (b"QKVPARTY 1 64\n" + bytes(100), "missing"),
        }
        for name, (data, text) in broken.items():
            with self.subTest(name):
                done = self.given(data)
                self.complains(done, 1, "party.qkvp", "not a party file", text)


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    command.main()
