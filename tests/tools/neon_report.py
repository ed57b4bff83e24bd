#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/neon-report: which loop is found, what is made of llvm-mca's and of qemu's
words. Where llvm-mca is installed a loop of known speed is modelled too. neon_report.py ROOT."""

import subprocess
import sys
import unittest

ROOT = sys.argv.pop(1)
sys.path.insert(0, ROOT + "/tools/neon")

import count  # noqa: E402
import loops  # noqa: E402
import model  # noqa: E402

# Two functions: one with an outer loop around a loop, a loop that calls and one after them.
LISTING = """
0000000000000000 <tile_a>:
   0:\tmov\tx0, #0x4
   4:\tld1\t{v0.4s}, [x1]
   8:\tfmla\tv16.4s, v0.4s, v1.s[0]
   c:\tfmla\tv17.4s, v0.4s, v1.s[1]
  10:\tsubs\tx0, x0, #0x1
  14:\tb.ne\t8 <tile_a+0x8>  // b.any
  18:\tfmla\tv18.4s, v0.4s, v1.s[0]
  1c:\tcbnz\tx2, 4 <tile_a+0x4>
  20:\tfmla\tv1.4s, v0.4s, v0.4s
  24:\tfmla\tv2.4s, v0.4s, v0.4s
  28:\tfmla\tv3.4s, v0.4s, v0.4s
  2c:\tbl\t80 <expf>
  30:\tb\t20 <tile_a+0x20>
  34:\tret

0000000000000040 <tile_b>:
  40:\tfmla\tv1.4s, v0.4s, v0.4s
  44:\tfmla\tv2.4s, v0.4s, v0.4s
  48:\ttbnz\tw3, #31, 40 <tile_b>
  4c:\tb.eq\t54 <tile_b+0x14>  // b.none
  50:\tfmla\tv3.4s, v0.4s, v0.4s
  54:\tret
"""

LOG = """\
----------------
IN: main
0x5500001000:  4f801210  fmla     v16.4s, v16.4s, v0.s[0]
0x5500001004:  4e20cc01  fmla     v1.4s, v0.4s, v0.4s
0x5500001008:  54ffffc1  b.ne     #0x5500001000

Trace 0: 0x7f10 [0000000000001001/0000005500001000/00000001/00000200] main
Trace 0: 0x7f10 [0000000000001001/0000005500001000/00000001/00000200] main
----------------
IN:\x20
0x550000100c:  4f809210  fmul     v16.4s, v16.4s, v0.s[0]

Trace 0: 0x7f20 [0000000000001001/000000550000100c/00000001/00000200]\x20
Trace 0: 0x7f10 [0000000000001001/0000005500001000/00000001/00000200] main
"""


class Loops(unittest.TestCase):
    def test_innermost_loop_with_most(self):
        loop = loops.pick(LISTING, "tile_a", "fmla", "here")
        self.assertEqual((loop.function, loop.start), ("tile_a", 8))
        self.assertEqual(loop.code, ("fmla v16.4s, v0.4s, v1.s[0]", "fmla v17.4s, v0.4s, v1.s[1]",
                                     "subs x0, x0, #0x1", "b.ne 0"))

    def test_shortest_of_equals(self):
        loop = loops.pick(LISTING, "tile", "fmla", "here")
        self.assertEqual(loop.code[-1], "tbnz w3, #31, 0")
        self.assertEqual(len(loop.code), 3)

    def test_address_of_a_constant(self):
        self.assertEqual(loops.for_model("adrp x30, 0 <tile_b>"), "adrp x30, 0")
        self.assertEqual(loops.for_model("add x0, x0, #0x10"), "add x0, x0, #0x10")

    def test_nothing_found(self):
        for function, kind in (("tile", "fmaxnm"), ("other", "fmla")):
            with self.assertRaisesRegex(loops.Wrong, f"no inner loop with {kind}"):
                loops.pick(LISTING, function, kind, "here")


class Counting(unittest.TestCase):
    def test_tally(self):
        self.assertEqual(count.tally(LOG.splitlines(True)), count.Executed(3 * 3 + 1, 3 * 2))

    def test_difference(self):
        self.assertEqual(count.Executed(9, 4) - count.Executed(5, 1), count.Executed(4, 3))

    def test_unknown_log(self):
        with self.assertRaisesRegex(loops.Wrong, "no blocks"):
            count.tally(["something else\n"])
        with self.assertRaisesRegex(loops.Wrong, "did not list"):
            count.tally(LOG.replace("0x550000100c:", "0x550000200c:").splitlines(True))


class Model(unittest.TestCase):
    LOOP = loops.Loop("f", 0, ("ldr q0, [x0]", "fmla v1.4s, v0.4s, v0.4s", "fmla v2.4s, v0.4s, v0.4s"))

    def test_share_is_of_the_pipes_that_multiply(self):
        use = [{"InstructionIndex": 0, "ResourceIndex": 7, "ResourceUsage": 1.0},
               {"InstructionIndex": 1, "ResourceIndex": 3, "ResourceUsage": 1.0},
               {"InstructionIndex": 2, "ResourceIndex": 4, "ResourceUsage": 0.5},
               {"InstructionIndex": 3, "ResourceIndex": 3, "ResourceUsage": 1.0}]
        self.assertAlmostEqual(model.pipe_share(self.LOOP, use), (1.0 + 0.5) / 2)

    def test_known_loops(self):
        try:
            mca, _ = model.program()
        except loops.Wrong as wrong:
            print(f"skip: {wrong}")  # for tools/test, which counts such lines
            self.skipTest(str(wrong))
        chain = loops.Loop("chain", 0, ("fmla v1.4s, v0.4s, v0.4s",))
        free = loops.Loop("free", 0, tuple(f"fmla v{n}.4s, v0.4s, v0.4s" for n in range(1, 25)))
        self.assertLess(model.judge(mca, "neoverse-n1", chain).busy, 50)
        self.assertGreater(model.judge(mca, "neoverse-n1", free).busy, 95)
        with self.assertRaisesRegex(loops.Wrong, "cannot model"):
            model.judge(mca, "neoverse-n1", loops.Loop("bad", 0, ("no such instruction",)))


class Command(unittest.TestCase):
    def test_failure_is_a_sentence(self):
        done = subprocess.run([ROOT + "/tools/neon-report", "--build", "/dev/null/x"], text=True,
                              capture_output=True, check=False, env={"PATH": "/nowhere:/usr/bin"})
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^tools/neon-report: .*\n$")


if __name__ == "__main__":
    unittest.main()
