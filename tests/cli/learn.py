#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""qkv party --learn: what it tells, and the picture. Usage: learn.py QKV"""

import os
import re
import resource
import struct
import unittest
import zlib

import command
from command import Case, qkv, read

GUESTS = 12
WIDTH, HEIGHT = 1680, 1020
PNG = os.environ.get("QKV_PNG") == "1"


def decode(data, most):
    """Width, height and the first rows of an 8-bit RGB PNG."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, head = 8, b"", None
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    width, height, depth, colour, _, _, interlace = head
    assert (depth, colour, interlace) == (8, 2, 0)
    raw, stride = zlib.decompress(packed), 3 * width
    assert len(raw) == height * (1 + stride)
    rows, before = [], bytes(stride)
    for y in range(most):
        method, *row = raw[y * (1 + stride):(y + 1) * (1 + stride)]
        for i, value in enumerate(row):
            a, b, c = row[i - 3] if i > 2 else 0, before[i], before[i - 3] if i > 2 else 0
            paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[i] = value + (0, a, b, (a + b) // 2, paeth)[method] & 255
        rows.append(bytes(row))
        before = row
    return width, height, rows


class Learn(Case):
    @classmethod
    def setUpClass(cls):
        if command.WRAPPER:
            raise unittest.SkipTest("400 steps take long under an emulator; cli_train runs there")
        cls.done = qkv("party", "--learn")
        cls.text = cls.done.stdout

    def maps(self):
        """The rows of both maps: (label, cells)."""
        rows = re.findall(r"^ *(\w+\?) \|(.*)\|$", self.text, re.MULTILINE)
        self.assertEqual(len(rows), 2 * GUESTS)
        return rows[:GUESTS], rows[GUESTS:]

    def test_text(self):
        text = self.fine(self.done)
        self.assertTrue(all(len(line) <= 90 for line in text.splitlines()))
        before, after = self.maps()
        self.assertEqual([label for label, _ in before], [label for label, _ in after])
        self.assertEqual(len({label for label, _ in before}), GUESTS)
        for i, (_, cells) in enumerate(after):
            # Every call listens to its guest, and to hardly anybody else.
            self.assertIn(cells[3 * i], "%@")
            self.assertLess(len(cells.replace(" ", "")), 8)
        self.assertGreater(sum(len(cells.replace(" ", "")) for _, cells in before), 300)
        lines = re.findall(r"^  step +(\d+)  loss ([\d.]+)  accuracy +([\d.]+) %", text,
                           re.MULTILINE)
        self.assertEqual((lines[0][0], lines[-1][0]), ("0", "400"))
        self.assertLess(float(lines[0][2]), 10)
        self.assertGreaterEqual(float(lines[-1][2]), 99)
        self.assertGreater(float(lines[0][1]), 100 * float(lines[-1][1]))
        self.assertIn(f" and {GUESTS} of {GUESTS} answers are\nright.", text)

    def test_answers(self):
        """The table names every guest, the story that was told, and the right answer after."""
        table = self.text.split("answer after\n")[1].splitlines()
        names = [label[:-1] for label, _ in self.maps()[0]]
        rows = [re.split(r"  +", line.strip()) for line in table]
        self.assertEqual([row[0] for row in rows], names)
        self.assertEqual([row[1] for row in rows], [row[3] for row in rows])
        self.assertEqual(len({row[1] for row in rows}), GUESTS)
        self.assertNotEqual([row[1] for row in rows], [row[2] for row in rows])

    def test_same_text(self):
        """But for the seconds, on any number of CPUs."""
        if command.SANITIZED:
            self.skipTest("400 steps take long under a sanitizer")
        again = qkv("party", "--learn", preexec_fn=lambda: os.sched_setaffinity(
            0, {min(os.sched_getaffinity(0))}))
        said = {re.sub(r"[\d.]+ seconds", "", self.fine(done)) for done in (self.done, again)}
        self.assertEqual(len(said), 1)


class Picture(Case):
    def setUp(self):
        super().setUp()
        if not PNG:
            self.skipTest("this command was built without libpng")
        if command.WRAPPER:
            self.skipTest("400 steps take long under an emulator")

    def test_picture(self):
        path = self.path("party.png")
        self.fine(qkv("party", "--learn", "--png", path))
        width, height, rows = decode(read(path), 576)
        self.assertEqual((width, height), (WIDTH, HEIGHT))
        # The darkest blue is that of weights near 1: a diagonal in the right map, none in the left.
        dark = [(x, y) for y in range(240, 576) for x in range(0, width)
                if (p := rows[y][3 * x:3 * x + 3])[0] < 0x18 and p[1] < 0x50 and p[2] > 0x50]
        self.assertGreater(len(dark), 10 * 20 * 20)
        self.assertGreater(min(x for x, _ in dark), width // 2)
        left = min(x for x, _ in dark)
        self.assertTrue(all(abs((x - left) - (y - 240)) < 28 for x, y in dark))

    def test_no_room(self):
        path = self.file("party.png", b"old")
        done = qkv("party", "--learn", "--png", path, preexec_fn=lambda: (
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aqkv: \S+party.png: File too large\n\Z")
        self.assertEqual((self.names(), read(path)), (["party.png"], b"old"))


class Without(Case):
    def test_no_libpng(self):
        if PNG:
            self.skipTest("this command has libpng")
        done = qkv("party", "--learn", "--png", self.path("party.png"))
        self.complains(done, 1, "--png", "built without libpng")


if __name__ == "__main__":
    command.main()
