#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""qkv cpu: the table and the JSON say the same, and what QKV_CPU_MAX and QKV_CPU_DISABLE do is
seen there. Usage: cpu.py QKV"""

import json
import unittest

import command
from command import Case, qkv

STAGES = {"project", "scores", "softmax", "mix", "attention", "project_backward", "scores_backward",
          "softmax_backward", "mix_backward", "attention_backward", "loss", "descent", "append", "rotate", "decode",
          "merge"}
ROOMS = ["scalar", "avx2", "avx512", "neon"]


class Cpu(Case):
    def report(self, **env):
        return json.loads(self.fine(qkv("cpu", "--json", env=env)))

    def setUp(self):
        super().setUp()
        self.plain = self.report()
        self.usable = [room for room in ROOMS if self.plain["rooms"][room]["usable"]]

    def test_shape(self):
        self.assertEqual(set(self.plain), {"version", "features", "rooms", "unknown_overrides",
                                           "isa", "stages", "narrow", "last_cache"})
        self.assertEqual(set(self.plain["stages"]), STAGES)
        self.assertEqual(list(self.plain["rooms"]), ROOMS)
        self.assertEqual(self.plain["isa"], self.usable[-1])
        self.assertEqual(self.plain["unknown_overrides"], [])
        for name, bits in self.plain["features"].items():
            self.assertEqual(set(bits), {"detected", "withheld", "removed", "usable"}, name)
            self.assertFalse(bits["removed"], name)
            self.assertEqual(bits["usable"], bits["detected"] and not bits["withheld"], name)

    def test_table(self):
        """The table has a line for each entry of the JSON, with the same marks."""
        env = {"QKV_CPU_DISABLE": "avx512bf16,dotprod"}
        parts = self.fine(qkv("cpu", env=env)).split("\n\n")
        features, rooms, stages = ({line.split()[0]: line.split()[1:] for line in part.splitlines()}
                                   for part in parts[1:4])
        report = self.report(**env)

        def marks(bits):
            return ["yes" if bit else "-" for bit in bits.values()]

        for name, bits in report["features"].items():
            self.assertEqual(features[name], marks(bits), name)
        for name, bits in report["rooms"].items():
            self.assertEqual(rooms[name], marks(bits), name)
        for name, variant in report["stages"].items():
            self.assertEqual(stages[name], [variant], name)
        self.assertIn(f"the room in use is {report['isa']}", parts[3])
        narrow = dict(line.split() for line in parts[4].splitlines()[1:])
        self.assertEqual(narrow, {name: variant or "-" for name, variant in report["narrow"].items()})
        size = f"{report['last_cache'] / 2**20:.6g} MiB" if report["last_cache"] else "-"
        self.assertEqual(parts[5].split(maxsplit=1), ["last-level", f"cache    {size}"])

    def test_narrow(self):
        """A variant of narrow arithmetic is named after its feature, and goes with it."""
        self.assertEqual(list(self.plain["narrow"]), ["f16", "bf16", "i8"])
        for dtype, variant in self.plain["narrow"].items():
            if variant:
                self.assertTrue(self.plain["features"][variant]["usable"])
                without = self.report(QKV_CPU_DISABLE=variant)["narrow"][dtype]
                self.assertNotEqual(without, variant)
        self.assertEqual(set(self.report(QKV_CPU_MAX="scalar")["narrow"].values()), {None})

    def test_max(self):
        """Each cap binds that room; no stage keeps a variant of a higher one."""
        for room in self.usable:
            with self.subTest(room):
                report = self.report(QKV_CPU_MAX=room)
                self.assertEqual(report["isa"], room)
                lower = self.usable[: self.usable.index(room) + 1]
                self.assertEqual([r for r in ROOMS if report["rooms"][r]["usable"]], lower)
                for stage, variant in report["stages"].items():
                    self.assertTrue(any(variant.startswith(r) for r in lower), (stage, variant))

    def test_max_only_takes_away(self):
        for room in ROOMS:
            with self.subTest(room):
                report = self.report(QKV_CPU_MAX=room)
                for name, bits in report["features"].items():
                    before = self.plain["features"][name]
                    self.assertEqual(bits["detected"], before["detected"])
                    self.assertEqual(bits["removed"], before["usable"] and not bits["usable"])
                    self.assertLessEqual(bits["usable"], before["usable"])

    def test_disable(self):
        for name, bits in self.plain["features"].items():
            with self.subTest(name):
                after = self.report(QKV_CPU_DISABLE=name)["features"][name]
                self.assertFalse(after["usable"])
                self.assertEqual(after["removed"], bits["usable"])

    def test_unknown(self):
        """Names that mean nothing are reported, quoted as JSON needs, and change nothing else."""
        env = {"QKV_CPU_MAX": "z80", "QKV_CPU_DISABLE": 'mmx,a"b\\c\td,\xe9'}
        report = self.report(**env)
        names = report.pop("unknown_overrides")
        self.assertEqual(names[:3], ["z80", "mmx", 'a"b\\c\td'])
        self.assertEqual(set(names[3]), {"\ufffd"})
        self.plain.pop("unknown_overrides")
        self.assertEqual(report, self.plain)
        self.assertIn("mean nothing here: z80,mmx", self.fine(qkv("cpu", env=env)))

    def test_unknown_without_names(self):
        """Commas with nothing between or behind them are no names."""
        for value, names in (("avx2,", ["avx2"]), (",", []), (",,z80,,mmx,", ["z80", "mmx"])):
            with self.subTest(value):
                self.assertEqual(self.report(QKV_CPU_MAX=value)["unknown_overrides"], names)

    def test_isa_option(self):
        """qkv attend --isa takes the rooms that qkv cpu calls usable, and no other."""
        for room in ROOMS:
            with self.subTest(room):
                done = qkv("attend", *self.inputs(), "--show", "--isa", room)
                if room in self.usable:
                    self.fine(done)
                elif self.plain["rooms"][room]["built"]:
                    self.complains(done, 1, "--isa", f"{room} is not on this CPU")
                else:
                    self.complains(done, 1, "--isa", f"{room} is not in this build")

    def test_isa_removed(self):
        if len(self.usable) < 2:
            self.skipTest("this CPU has the scalar room alone")
        done = qkv("attend", *self.inputs(), "--show", "--isa", self.usable[-1],
                   env={"QKV_CPU_MAX": "scalar"})
        self.complains(done, 1, "--isa", "QKV_CPU_MAX")


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    command.main()
