#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the command says to a wrong command line (exit status 2), to arrays that do not fit
together (1), and when asked for help (0). Usage: usage.py QKV"""

import re
import resource
import struct

import command
from command import Case, f32, npy, qkv

FILES = ["--q", "q", "--k", "k", "--v", "v"]
ANSWER = ["--out", "o"]

# (arguments, what the one line says); no file is ever opened.
BAD_USAGE = [
    ([], "PART: is missing"),
    (["dance"], "dance: is no part"),
    (["help", "dance"], "dance: is no part"),
    (["--verbose"], "--verbose: is no part"),
    (["--version", "now"], "now: is not expected"),
    (["cpu", "--jason"], "--jason: is not an option here (see qkv cpu --help)"),
    (["cpu", "now"], "now: is not expected here"),
    (["cpu", "--json=yes"], "--json: takes no value"),
    (["cpu", "--json", "--json"], "--json: is given twice"),
    (["cpu", "--js"], "--js: is not an option"),
    (["cpu", "-j"], "-j: is not an option"),
    (["cpu", ""], "'': is not expected"),
    (["party", "--head"], "--head: needs a value (H)"),
    (["party", "--head", "four"], "--head: 'four' is not a number"),
    (["party", "--head", "4.5"], "--head: '4.5' is not a number"),
    (["party", "--head", "-1"], "--head: -1 is not between 0 and"),
    (["party", "--head", "99999999999999999999"], "--head: '99999999999999999999' is out of range"),
    (["party", "--head", "3"], "--head: 3 is not at the party"),
    (["party", "--png", "p"], "--png: goes with --learn"),
    (["party", "--learn", "--head", "4"], "--head: cannot be given together with --learn"),
    (["train", "--lr", "0"], "--lr: 0 is not between 1e-09 and 1000"),
    (["train", "--lr", "-0.1"], "--lr: -0.1 is not between"),
    (["train", "--lr", "nan"], "--lr: nan is not a finite number"),
    (["train", "--lr", "inf"], "--lr: inf is not a finite number"),
    (["train", "--lr", "1e6"], "--lr: 1000000 is not between"),
    (["train", "--lr", "fast"], "--lr: 'fast' is not a number"),
    (["train", "--steps", "0"], "--steps: 0 is not between 1"),
    (["train", "--heads", "0"], "--heads: 0 is not between 1"),
    (["train", "--batch", "0"], "--batch: 0 is not between 1"),
    (["train", "--seed", "-1"], "--seed: -1 is not between 0"),
    (["train", "--clip", "0"], "--clip: 0 is not between"),
    (["train", "--weight-decay", "2"], "--weight-decay: 2 is not between 0 and 1"),
    (["train", "--optimizer", "adam"], "--optimizer: 'adam' is not one of sgd|momentum|adamw"),
    (["train", "--x", "x"], "--target: is missing; it goes with --x"),
    (["train", "--target", "y"], "--x: is missing; it goes with --target"),
    (["train", "--causal"], "--causal: goes with --x"),
    (["train", "--holdout", "0.5"], "--holdout: goes with --x"),
    (["train", "--x", "x", "--target", "y", "--holdout", "1"], "--holdout: 1 is not between 0 and 0.9"),
    (["train", "--resume"], "--resume: needs --out"),
    (["train", "--isa", "sse"], "--isa: 'sse' is no room"),
    (["train", "--threads", "0"], "--threads: 0 is not between 1"),
    (["attend"], "--q: is missing: give --q, --k and --v, or --x"),
    (["attend", *FILES], "--out: is missing: nothing to do"),
    (["attend", *FILES[2:], *ANSWER], "--q: is missing; it goes with --k"),
    (["attend", "--q", "q", "--v", "v", *ANSWER], "--k: is missing"),
    (["attend", *FILES[:4], *ANSWER], "--v: is missing"),
    (["attend", "--x", "x", *ANSWER], "--wq: is missing; it goes with --x"),
    (["attend", "--wk", "w", *ANSWER], "--x: is missing; it goes with --wk"),
    (["attend", *FILES, "--x", "x", *ANSWER], "--x: cannot be given together with --q"),
    (["attend", *FILES, "--bq", "b", *ANSWER], "--bq: cannot be given together with --q"),
    (["attend", *FILES, "--w-layout", "out-in", *ANSWER], "--w-layout: goes with --x"),
    (["attend", *FILES, "--out", "same", "--lse", "same"], "--lse: is the same file as --out"),
    (["attend", *FILES, "--out", "a", "--weights", "a"], "--weights: is the same file as --out"),
    (["attend", *FILES, "--out"], "--out: needs a value (FILE)"),
    (["attend", *FILES, "--out="], "--out: needs a value (FILE)"),
    (["attend", *FILES, "--out", "--show"], "--out: needs a value (FILE)"),
    (["attend", *FILES, *ANSWER, "--scale", "big"], "--scale: 'big' is not a number"),
    (["attend", *FILES, *ANSWER, "--scale", "1x"], "--scale: '1x' is not a number"),
    (["attend", *FILES, *ANSWER, "--scale", "nan"], "--scale: nan is not a finite number"),
    (["attend", *FILES, *ANSWER, "--scale", "inf"], "--scale: inf is not a finite number"),
    (["attend", *FILES, *ANSWER, "--scale", "1e39"], "--scale: 1e+39 is not between"),
    (["attend", *FILES, *ANSWER, "--softcap", "-1"], "--softcap: -1 is not between 0"),
    (["attend", *FILES, *ANSWER, "--align", "left"], "--align: 'left' is not one of bottom-right"),
    (["attend", *FILES, *ANSWER, "--exp", "fast"], "--exp: 'fast' is not one of sleef-u10"),
    (["attend", *FILES, "--cache-dtype", "f64"], "--cache-dtype: 'f64' is not one of bf16|f16|i8|f32"),
    (["attend", *FILES, *ANSWER, "--page-size", "16"], "--page-size: goes with --cache-dtype"),
    (["attend", *FILES, *ANSWER, "--cache-v-dtype", "i8"], "--cache-v-dtype: goes with --cache-dtype"),
    (["attend", *FILES, *ANSWER, "--cache-arithmetic", "narrow"],
     "--cache-arithmetic: goes with --cache-dtype"),
    (["attend", *FILES, "--cache-dtype", "i8", "--cache-arithmetic", "wide"],
     "--cache-arithmetic: 'wide' is not one of f32|narrow"),
    (["attend", *FILES, "--cache-dtype", "i8", "--page-size", "24"],
     "--page-size: 24 is not a multiple of 16"),
    (["attend", *FILES, "--cache-dtype", "i8", "--page-size", "0"], "--page-size: 0 is not between 16"),
    (["attend", *FILES, *ANSWER, "--causal=1"], "--causal: takes no value"),
    (["attend", *FILES, *ANSWER, "--window", "4"], "--window: needs two numbers"),
    (["attend", *FILES, *ANSWER, "--window", "4,5,6"], "--window: needs two numbers"),
    (["attend", *FILES, *ANSWER, "--window", "4,-2"], "--window: -2 is not between -1"),
    (["attend", *FILES, *ANSWER, "--window", "4;5"], "--window: '4;5' is not a list of integers"),
    (["attend", *FILES, *ANSWER, "--window", "4,"], "--window: '4,' is not a list"),
    (["attend", *FILES, *ANSWER, "--window", ""], "--window: '' is not a list"),
    (["attend", *FILES, *ANSWER, "--heads", "0"], "--heads: 0 is not between 1"),
    (["attend", *FILES, *ANSWER, "--kv-heads", "-2"], "--kv-heads: -2 is not between 1"),
    (["attend", *FILES, *ANSWER, "--q-lens", "1,-1"], "--q-lens: -1 is not between 0"),
    (["attend", *FILES, *ANSWER, "--kv-lens", "1,2147483648"], "--kv-lens: 2147483648 is not"),
    (["attend", *FILES, *ANSWER, "--cu-q", "0"], "--cu-q: needs at least two numbers"),
    (["attend", *FILES, *ANSWER, "--cu-q", "1,2"], "--cu-q: begins with 1"),
    (["attend", *FILES, *ANSWER, "--cu-q", "0,3,2"], "--cu-q: decreases from 3 to 2"),
    (["attend", *FILES, *ANSWER, "--cu-kv", "0,3,2"], "--cu-kv: decreases from 3 to 2"),
    (["attend", *FILES, *ANSWER, "--cu-q", "0,3", "--cu-kv", "0,1,2"],
     "--cu-kv: has 3 numbers, but --cu-q has 2"),
    (["attend", *FILES, *ANSWER, "--cu-q", "0,3", "--q-lens", "3"], "--cu-q: cannot be given"),
    (["attend", *FILES, *ANSWER, "--cu-kv", "0,3", "--kv-lens", "3"], "--cu-kv: cannot be given"),
    (["attend", *FILES, *ANSWER, "--isa", "sse9"], "--isa: 'sse9' is no room"),
    (["attend", *FILES, *ANSWER, "--threads", "0"], "--threads: 0 is not between 1"),
    (["attend", *FILES, *ANSWER, "--threads", "1000000"], "--threads: 1000000 is not between 1"),
    (["attend", *FILES, *ANSWER, "--q", "q2"], "--q: is given twice"),
    (["attend", *FILES, *ANSWER, "o"], "o: is not expected"),
]

# (shapes of files by option, other arguments, what the one line says)
QKV = {"--q": (2, 3, 4), "--k": (2, 5, 4), "--v": (2, 5, 4)}
XW = {"--x": (3, 4), "--wq": (4, 8), "--wk": (4, 8), "--wv": (4, 6)}
MISFITS = [
    ({**QKV, "--k": (2, 5, 3)}, [], "k.npy: has head_dim 3, but"),
    ({**QKV, "--v": (1, 5, 4)}, [], "v.npy: has 1 heads, but"),
    ({**QKV, "--v": (2, 6, 4)}, [], "v.npy: has 6 rows, but"),
    ({"--q": (3, 3, 4), "--k": (2, 5, 4), "--v": (2, 5, 4)}, [], "q.npy: has 3 heads, no multiple of the 2 of "),
    ({**QKV, "--k": (2, 2, 5, 4), "--v": (2, 2, 5, 4)}, [], "k.npy: holds a batch of 2; 1 is needed"),
    ({**QKV, "--v": (2, 2, 5, 4)}, [], "v.npy: holds a batch of 2; 1 is needed"),
    ({"--q": (3, 513), "--k": (3, 513), "--v": (3, 4)}, [], "--q: head_dim is out of range"),
    ({"--q": (3, 4), "--k": (3, 4), "--v": (3, 513)}, [], "--v: v_dim is out of range"),
    ({"--q": (0, 3, 4), "--k": (2, 5, 4), "--v": (2, 5, 4)}, [], "--heads: q_heads is zero"),
    (QKV, ["--heads", "3"], "--heads: says 3, but"),
    (QKV, ["--kv-heads", "1"], "--kv-heads: says 1, but"),
    ({"--q": (3, 8), "--k": (5, 8), "--v": (5, 8)}, ["--heads", "3"],
     "q.npy: has shape (3, 8); its columns do not split into 3 heads"),
    ({"--q": (3, 8), "--k": (5, 6), "--v": (5, 6)}, ["--heads", "2"], "k.npy: has head_dim 6, but"),
    ({"--q": (3, 8), "--k": (5, 8), "--v": (5, 7)}, ["--heads", "2"], "v.npy: has shape (5, 7)"),
    (QKV, ["--q-lens", "3,3"], "--q-lens: has 2 numbers for a batch of 1"),
    (QKV, ["--kv-lens", "3,3"], "--kv-lens: has 2 numbers for a batch of 1"),
    (QKV, ["--q-lens", "4"], "--q-lens: q_lens holds a sequence length"),
    (QKV, ["--kv-lens", "6"], "--kv-lens: kv_lens holds a sequence length"),
    (QKV, ["--cu-q", "0,2"], "--cu-q: ends with 2, but"),
    (QKV, ["--cu-q", "0,3", "--cu-kv", "0,4"], "--cu-kv: ends with 4, but"),
    ({**QKV, "--q": (2, 2, 3, 4)}, ["--cu-q", "0,2,3"], "q.npy: has a batch dimension"),
    (QKV, ["--cu-q", "0,2,3"], "k.npy: holds a batch of 1; 2 is needed"),
    ({**QKV, "--sinks": (3,)}, [], "sinks.npy: has shape (3,); (2,), a number a head"),
    ({**QKV, "--sinks": (1, 2)}, [], "sinks.npy: has shape (1, 2); (2,)"),
    ({**QKV, "--alibi": (1,)}, [], "alibi.npy: has shape (1,); (2,)"),
    ({**QKV, "--bias": (4, 5)}, [], "bias.npy: has shape (4, 5), which does not broadcast to (1, 2, 3, 5)"),
    ({**QKV, "--bias": (3, 3, 5)}, [], "bias.npy: has shape (3, 3, 5), which does not"),
    ({**QKV, "--bias": (2, 1, 1, 5)}, [], "bias.npy: has shape (2, 1, 1, 5), which does not"),
    ({**QKV, "--bias": (1, 1, 1, 3, 5)}, [], "bias.npy: has shape (1, 1, 1, 3, 5), which does not"),
    ({**XW, "--x": (4,)}, [], "x.npy: has shape (4,)"),
    ({**XW, "--x": (1, 1, 3, 4)}, [], "x.npy: has shape (1, 1, 3, 4)"),
    ({**XW, "--wq": (5, 8)}, [], "wq.npy: has shape (5, 8); [d_model, width]"),
    ({**XW, "--wk": (4, 8, 1)}, [], "wk.npy: has shape (4, 8, 1)"),
    ({**XW, "--wv": (4, 0)}, [], "wv.npy: has shape (4, 0)"),
    (XW, ["--w-layout", "out-in"], "wq.npy: has shape (4, 8); [width, d_model]"),
    (XW, ["--heads", "3"], "wq.npy: has 8 outputs, no multiple of --heads 3"),
    ({**XW, "--wk": (4, 6)}, ["--heads", "2"], "wk.npy: has 6 outputs, no multiple of head_dim 4"),
    ({**XW, "--wv": (4, 7)}, ["--heads", "2"], "wv.npy: has 7 outputs, no multiple of kv_heads 2"),
    (XW, ["--heads", "2", "--kv-heads", "1"], "--kv-heads: says 1, but"),
    ({**XW, "--bq": (7,)}, [], "bq.npy: has shape (7,); one number"),
    ({**XW, "--bv": (1, 6)}, [], "bv.npy: has shape (1, 6); one number"),
    ({**XW, "--x": (2, 3, 4)}, ["--cu-q", "0,3,6"], "x.npy: has a batch dimension"),
]


class Usage(Case):
    def test_fit(self):
        for shapes, more, text in MISFITS:
            with self.subTest(text):
                arguments = list(more)
                for option, shape in shapes.items():
                    arguments += [option, self.file(option[2:] + ".npy", f32(*shape))]
                done = qkv("attend", *arguments, "--out", self.path("out.npy"), "--show")
                self.complains(done, 1, text)
                self.assertNotIn("out.npy", self.names())

    def test_mask_shape(self):
        bad = self.file("mask.npy", npy("|b1", "(3, 4)", bytes(12)))
        done = qkv("attend", *self.inputs(), "--mask", bad, "--show")
        self.complains(done, 1, bad, "does not broadcast to (1, 1, 3, 5)")

    def test_no_memory(self):
        """Weights beyond the address space: 2^12 heads of 2^10 queries by 2^10 keys, 16 GiB."""
        arguments = ["--weights", self.path("w")]
        data = npy("<f4", "(4096, 1024, 1)", struct.pack("<f", 0.5) * 2 ** 22)
        for option in ("--q", "--k", "--v"):
            arguments += [option, self.file(option[2:], data)]
        if command.SANITIZED or command.WRAPPER:
            self.skipTest("the limit of memory would hit the sanitizer or the emulator")
        done = qkv("attend", *arguments, preexec_fn=lambda: (
            resource.setrlimit(resource.RLIMIT_AS, (2 ** 30, 2 ** 30))))
        self.complains(done, 1, "--weights", "shape (1, 4096, 1024, 1024) does not fit in memory")
        self.assertNotIn("w", self.names())

    def test_help(self):
        """--help of a part names every option of its table, and exits with 0."""
        general = self.fine(qkv("--help"))
        for part in ("cpu", "attend", "party", "train"):
            self.assertIn(f"qkv {part}", general)
            text = self.fine(qkv(part, "--help"))
            self.assertTrue(text.startswith(f"usage: qkv {part} "))
            self.assertEqual(text, self.fine(qkv("help", part)))
            self.assertEqual(text, self.fine(qkv(part, "-h")))
            self.assertTrue(all(len(line) <= 90 for line in text.splitlines()))
        self.assertEqual(general, self.fine(qkv("help")))
        self.assertEqual(general, self.fine(qkv("-h")))

    def test_help_and_parser_agree(self):
        """Every option that the help shows is one that the parser knows."""
        options = set(re.findall(r"^  (--[\w-]+)", self.fine(qkv("attend", "--help")), re.MULTILINE))
        self.assertGreaterEqual(len(options), 30)
        for option in sorted(options - {"--help"}):
            done = qkv("attend", option)
            self.assertNotIn("is not an option", done.stderr, option)

    def test_version(self):
        self.assertRegex(self.fine(qkv("--version")), r"\Aqkv \d+\.\d+\.\d+\n\Z")


def usage_test(args, text):
    return lambda self: self.complains(qkv(*args), 2, text)


for number, (args_, text_) in enumerate(BAD_USAGE):
    setattr(Usage, f"test_bad_{number:02}", usage_test(args_, text_))


if __name__ == "__main__":
    command.main()
