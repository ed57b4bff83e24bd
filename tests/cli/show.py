#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The heat maps of qkv attend --show: marks, labels, widths, colours. Usage: show.py QKV"""

import os
import pty
import re
import struct
import subprocess
import unittest

import command
from command import Case, f32, npy, qkv

RAMP = " .:-=+*#%@"


def zeros(*shape):
    count = 1
    for size in shape:
        count *= size
    return npy("<f4", repr(shape), bytes(4 * count))


class Show(Case):
    def show(self, *more, q=(3, 4), k=(5, 4), env=None):
        arguments = ["--q", self.file("q.npy", f32(*q)), "--k", self.file("k.npy", f32(*k)),
                     "--v", self.file("v.npy", f32(*k))]
        return self.fine(qkv("attend", *arguments, "--show", *more, env=env))

    def diagonal(self, n, *more, env=None):
        """Weights of 1 on the diagonal: 50 on it before softmax, 0 elsewhere."""
        data = b"".join(struct.pack(f"<{n}f", *(50 * (i == j) for j in range(n))) for i in range(n))
        bias = self.file("bias.npy", npy("<f4", f"({n}, {n})", data))
        for name in "qkv":
            self.file(name + ".npy", zeros(n, 1))
        return self.fine(qkv("attend", "--q", self.path("q.npy"), "--k", self.path("k.npy"), "--v",
                             self.path("v.npy"), "--bias", bias, "--show", *more, env=env))

    def test_diagonal(self):
        self.assertEqual(self.diagonal(3), """\
sequence 0, head 0 (down: queries, across: keys)
   0  1  2  
0 |@@       |
1 |   @@    |
2 |      @@ |
   0 """ + RAMP + " 1\n")

    def test_uniform(self):
        """Equal weights all have the darkest mark; the legend tells how much it is."""
        for name, length in (("q", 2), ("k", 4), ("v", 4)):
            self.file(name + ".npy", zeros(length, 1))
        text = self.fine(qkv("attend", "--q", self.path("q.npy"), "--k", self.path("k.npy"), "--v",
                             self.path("v.npy"), "--show"))
        self.assertIn("0 |@@ @@ @@ @@ |\n1 |@@ @@ @@ @@ |\n", text)
        self.assertIn(RAMP + " 0.25\n", text)

    def test_every_head(self):
        text = self.show(q=(2, 4, 3, 4), k=(2, 2, 5, 4))
        self.assertEqual(re.findall(r"^sequence (\d), head (\d)", text, re.MULTILINE),
                         [(str(b), str(h)) for b in range(2) for h in range(4)])

    def test_lengths(self):
        """Of padded and ragged sequences only the rows and keys that there are."""
        def sizes(text):
            return [(len(rows), (len(rows[0].split("|")[1]) // 3) if rows else 0)
                    for rows in (re.findall(r"^ *\d+ \|.*\|$", part, re.MULTILINE)
                                 for part in text.split("sequence")[1:])]
        padded = self.show("--q-lens", "3,1", "--kv-lens", "2,5", q=(2, 1, 3, 4), k=(2, 1, 5, 4))
        self.assertEqual(sizes(padded), [(3, 2), (1, 5)])
        ragged = self.show("--cu-q", "0,2,3,3", "--cu-kv", "0,4,5,5")
        self.assertEqual(sizes(ragged), [(2, 4), (1, 1), (0, 0)])
        self.assertIn("(nothing to show: 0 rows, 0 columns)", ragged)

    def test_no_keys(self):
        self.assertIn("(nothing to show: 3 rows, 0 columns)", self.show(k=(0, 4)))

    def test_not_a_number(self):
        nan = self.file("bias.npy", npy("<f4", "(3, 1)", struct.pack("<3f", 0, float("nan"), 0)))
        rows = re.findall(r"^\d \|(.*)\|$", self.show("--bias", nan), re.MULTILINE)
        self.assertEqual(rows[1], "?? " * 5)
        self.assertNotIn("?", rows[0] + rows[2])

    def test_width(self):
        """Lines fit the width; narrower cells first, then a mark for several weights."""
        for n, width in [(30, 100), (30, 70), (30, 40), (64, 40), (65, 400), (200, 80), (200, 20)]:
            with self.subTest(n=n, width=width):
                text = self.diagonal(n, env={"COLUMNS": str(width)})
                rows = re.findall(r"^ *\d+ \|.*\|$", text, re.MULTILINE)
                self.assertTrue(all(len(row) <= width for row in rows), rows[0])
                self.assertLessEqual(len(rows), 64)
                # The largest of a square is kept, so the diagonal stays dark.
                self.assertTrue(all("@" in row for row in rows))
                if len(rows) < n:
                    self.assertRegex(text, r"a mark is the largest of \d+ x \d+ weights")

    def test_column_numbers(self):
        """They hang above their columns, a digit a line."""
        lines = self.diagonal(12).splitlines()
        self.assertEqual(lines[1].split(), ["1", "1"])
        self.assertEqual(lines[2].split(), list("012345678901"))
        self.assertEqual(lines[1].index("1"), lines[2].rindex("0"))

    def on_terminal(self, columns=80, **env):
        """What a terminal of this width is sent."""
        self.diagonal(5)
        try:
            master, slave = pty.openpty()
        except OSError:
            self.skipTest("no terminal can be opened here")
        subprocess.run(["stty", "cols", str(columns)], stdin=slave, check=True)
        arguments = ["attend", "--q", self.path("q.npy"), "--k", self.path("k.npy"), "--v",
                     self.path("v.npy"), "--bias", self.path("bias.npy"), "--show"]
        clean = {name: value for name, value in os.environ.items()
                 if name not in ("NO_COLOR", "TERM", "COLUMNS")}
        with subprocess.Popen([*command.command(), *arguments], stdout=slave,
                              env={**clean, "TERM": "xterm", **env}) as process:
            os.close(slave)
            text = b""
            try:
                while part := os.read(master, 65536):
                    text += part
            except OSError:
                pass  # how a terminal says that its other end is closed
        os.close(master)
        self.assertEqual(process.returncode, 0)
        return text.decode()

    def test_terminal(self):
        text = self.on_terminal()
        self.assertIn("\033[38;5;", text)
        self.assertIn("█", text)
        self.assertEqual(text.count("\033[38;5;"), text.count("\033[0m"))

    def test_terminal_without_colour(self):
        for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            with self.subTest(env):
                text = self.on_terminal(**env)
                self.assertNotIn("\033", text)
                self.assertTrue(text.isascii())
                self.assertIn("@@", text)
        self.assertIn("\033", self.on_terminal(NO_COLOR=""))

    def test_terminal_width(self):
        wide, narrow = self.on_terminal(80), self.on_terminal(12)
        self.assertIn("██", wide)
        self.assertNotIn("██", narrow)


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    command.main()
