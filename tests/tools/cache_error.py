#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/cache-error on few keys: a row for each kind of input and length, nothing wrong with a
float32 cache, and more of it the fewer bits there are. cache_error.py TOOL QKV."""

import json
import subprocess
import sys
import unittest

TOOL, QKV = sys.argv[1:3]


class CacheError(unittest.TestCase):
    def test_table(self):
        done = subprocess.run([TOOL, QKV, "--keys", "40", "300", "--dim", "32"], text=True,
                              capture_output=True, check=True)
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")]
                          for line in done.stdout.splitlines())
        self.assertEqual([row[:2] for row in rows], [[kind, keys] for kind in
                         ("normal", "tails", "outliers") for keys in ("40", "300")])
        for row in rows:
            error = {name: float(cell.rstrip(" %")) for name, cell in zip(head[2:], row[2:])}
            self.assertEqual(error["f32"], 0)
            self.assertLess(error["f32"], error["f16"])
            self.assertLess(error["f16"], error["bf16"])
            self.assertLess(error["bf16"], error["i8"])
            self.assertLess(error["f16"], error["K f16, V i8"])
            self.assertLess(error["i8"], 20)

    def test_narrow(self):
        """A column for each variant that the CPU has, further off than its type with exact products."""
        variants = json.loads(subprocess.run([QKV, "cpu", "--json"], text=True, capture_output=True,
                                             check=True).stdout)["narrow"]
        done = subprocess.run([TOOL, QKV, "--narrow", "--keys", "300", "--dim", "32"], text=True,
                              capture_output=True, check=False)
        if not any(variants.values()):
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("no variant", done.stderr)
            return
        heads = done.stdout.splitlines()[0].strip("|").split("|")[2:]
        self.assertEqual([head.strip() for head in heads],
                         [f"{name} ({variant})" for name, variant in variants.items() if variant])

    def test_complaint(self):
        done = subprocess.run([TOOL, QKV, "--keys", "40", "--dim", "600"], text=True,
                              capture_output=True, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("head_dim is out of range", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
