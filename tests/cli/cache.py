#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""qkv attend by way of a key/value cache: a float32 cache gives the bits of the plain call,
whatever the pages and the lengths; narrower types are as far off as the command says.
Usage: cache.py QKV"""

import itertools
import json
import math
import random
import re
import resource
import struct
import unittest

import command
from command import Case, npy, qkv, read

TYPES = ["f32", "f16", "bf16", "i8"]
TOLD = re.compile(r"\Aa cache of (\d+) bytes with room for (\d+) tokens, K in (\w+), V in (\w+)\n"
                  r"from exact attention, in percent of the RMS of its output: RMS (\S+) %, at most (\S+) %\n\Z")

# Options of the plain call, with the shapes of q, k and v.
CASES = [
    ((5, 8), (7, 8), (7, 8), []),
    ((4, 9, 16), (2, 70, 16), (2, 70, 5), ["--causal"]),
    ((2, 4, 3, 33), (2, 1, 301, 33), (2, 1, 301, 40), ["--window", "100,0", "--alibi", "auto"]),
    ((2, 2, 40, 16), (2, 2, 90, 16), (2, 2, 90, 16),
     ["--causal", "--q-lens", "40,7", "--kv-lens", "50,0", "--softcap", "20"]),
    ((3, 2, 1, 8), (3, 2, 1100, 8), (3, 2, 1100, 8), ["--kv-lens", "1100,1,1030"]),
    ((2, 10, 8), (2, 50, 8), (2, 50, 8), ["--causal", "--cu-q", "0,4,10", "--cu-kv", "0,33,50"]),
    ((3, 8), (0, 8), (0, 8), []),
]


def array(seed, *shape):
    """A .npy file of normally distributed numbers."""
    draw = random.Random(seed)
    count = math.prod(shape)
    values = [draw.gauss(0, 1) for _ in range(count)]
    return npy("<f4", repr(tuple(shape)), struct.pack(f"<{count}f", *values))


def numbers(data):
    """What a .npy file of float32 holds."""
    start = 10 + struct.unpack("<H", data[8:10])[0]
    return struct.unpack(f"<{(len(data) - start) // 4}f", data[start:])


class Cache(Case):
    def attend(self, shapes, *options):
        """The command's output, and the bytes of O and LSE."""
        files = []
        for seed, (name, shape) in enumerate(zip("qkv", shapes)):
            files += [f"--{name}", self.file(f"{name}.npy", array(seed, *shape))]
        answers = self.path("out.npy"), self.path("lse.npy")
        done = self.fine(qkv("attend", *files, "--out", answers[0], "--lse", answers[1], *options))
        return done, *map(read, answers)

    def rooms(self):
        report = json.loads(self.fine(qkv("cpu", "--json")))
        return [room for room, bits in report["rooms"].items() if bits["usable"]]

    def test_float32_has_the_bits_of_the_plain_call(self):
        for *shapes, options in CASES:
            for room in self.rooms():
                with self.subTest(shapes=shapes, room=room):
                    _, *plain = self.attend(shapes, *options, "--isa", room)
                    told, *cached = self.attend(shapes, *options, "--isa", room,
                                                "--cache-dtype", "f32", "--page-size", "32")
                    self.assertEqual(plain, cached)
                    self.assertEqual(TOLD.match(told).groups()[2:], ("f32", "f32", "0", "0"))

    def test_pages_do_not_matter(self):
        *shapes, options = CASES[3]
        for dtype in TYPES:
            with self.subTest(dtype):
                _, *whole = self.attend(shapes, *options, "--cache-dtype", dtype)
                for size in (16, 48, 1024):
                    _, *paged = self.attend(shapes, *options, "--cache-dtype", dtype,
                                            "--page-size", size, "--threads", 2)
                    self.assertEqual(whole, paged)

    def test_room(self):
        """The 90 keys of two sequences, rounded up to whole pages, or to 16."""
        *shapes, options = CASES[3]
        for pages, room in (([], 2 * 96), (["--page-size", 32], 2 * 96), (["--page-size", 80], 2 * 160)):
            text, *_ = self.attend(shapes, *options, "--cache-dtype", "i8", *pages)
            self.assertEqual(int(TOLD.match(text).group(2)), room)

    def test_what_is_told_is_so(self):
        """The printed difference is that of the files; fewer bits, fewer bytes, more of it."""
        *shapes, options = CASES[4]
        _, exact, _ = self.attend(shapes, *options)
        exact = numbers(exact)
        told = {}
        for dtype in TYPES:
            with self.subTest(dtype):
                text, out, _ = self.attend(shapes, *options, "--cache-dtype", dtype)
                size, _, k_type, v_type, *percent = TOLD.match(text).groups()
                rms, most = (float(x) / 100 for x in percent)
                steps = [abs(a - b) for a, b in zip(exact, numbers(out))]
                whole = math.sqrt(sum(x * x for x in exact))
                self.assertEqual((k_type, v_type), (dtype, dtype))
                self.assertAlmostEqual(rms * whole, math.hypot(*steps),
                                       delta=0.01 * math.hypot(*steps))
                self.assertAlmostEqual(most * whole / math.sqrt(len(exact)), max(steps),
                                       delta=0.01 * max(steps))
                told[dtype] = (int(size), rms)
        for wide, narrow in itertools.pairwise(TYPES):
            self.assertGreaterEqual(told[wide][0], told[narrow][0])
            self.assertLess(told[wide][1], told[narrow][1])
        self.assertLess(told["i8"][1], 0.05)

    def test_a_type_for_each(self):
        """V of another type: half the bytes less, and an error between those of the two."""
        *shapes, options = CASES[4]
        told = {}
        for k_type, v_type in itertools.product(("f32", "i8"), repeat=2):
            text, *_ = self.attend(shapes, *options, "--cache-dtype", k_type,
                                   "--cache-v-dtype", v_type)
            size, _, *types, rms, _ = TOLD.match(text).groups()
            self.assertEqual(types, [k_type, v_type])
            told[k_type, v_type] = (float(rms), -int(size))
        for mixed in (("f32", "i8"), ("i8", "f32")):
            self.assertLess(told["f32", "f32"], told[mixed])
            self.assertLess(told[mixed], told["i8", "i8"])
            self.assertLess(told["f32", "f32"][1], told[mixed][1])

    def test_narrow_arithmetic(self):
        """Where the CPU has a variant: other numbers, about as far from the exact ones as the cache's
        own rounding (of so few numbers that either error may be the smaller), and named. Else: one
        sentence."""
        variants = json.loads(self.fine(qkv("cpu", "--json")))["narrow"]
        *shapes, options = CASES[4]
        for dtype in ("f16", "bf16", "i8"):
            with self.subTest(dtype):
                how = [*options, "--cache-dtype", dtype, "--cache-arithmetic", "narrow"]
                if not variants[dtype]:
                    done = qkv("attend", *self.inputs(), *how[-4:])
                    self.complains(done, 1, "--cache-arithmetic", "not available")
                    continue
                text, out, _ = self.attend(shapes, *how)
                by = f" (by {variants[dtype]})"
                self.assertEqual(text.count(by), 2)
                narrow = float(TOLD.match(text.replace(by, "")).group(5))
                text, exact, _ = self.attend(shapes, *how[:-2])
                self.assertLess(abs(math.log2(narrow / float(TOLD.match(text).group(5)))), 2)
                self.assertNotEqual(out, exact)

    def test_narrow_arithmetic_of_float32(self):
        done = qkv("attend", *self.inputs(), "--cache-dtype", "f32", "--cache-arithmetic", "narrow")
        self.complains(done, 1, "--cache-arithmetic", "not available")

    def test_alone(self):
        """Without a file to write the difference is still told, and --show still drawn."""
        text = self.fine(qkv("attend", *self.inputs(), "--cache-dtype", "bf16"))
        self.assertRegex(text, TOLD)
        text = self.fine(qkv("attend", *self.inputs(), "--cache-dtype", "bf16", "--show"))
        self.assertIn("head 0", text)

    def test_nan(self):
        """A NaN among the values spreads as it does in the plain call; the difference is that of
        the other numbers."""
        value = list(numbers(array(2, 7, 8)))
        value[3 * 8 + 2] = math.nan
        paths = [self.file("q.npy", array(0, 5, 8)), self.file("k.npy", array(1, 7, 8)),
                 self.file("v.npy", npy("<f4", "(7, 8)", struct.pack("<56f", *value)))]
        files = ["--q", paths[0], "--k", paths[1], "--v", paths[2]]
        text = self.fine(qkv("attend", *files, "--cache-dtype", "f16"))
        self.assertLess(float(TOLD.match(text).group(5)), 1)

    def test_too_large(self):
        if command.SANITIZED or command.WRAPPER:
            self.skipTest("the limit of memory would hit the sanitizer or the emulator")
        done = qkv("attend", *self.inputs(), "--cache-dtype", "f32", "--page-size", 2147483632,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 ** 30, 2 ** 30)))
        self.complains(done, 1, "--cache-dtype", "memory")


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    command.main()
