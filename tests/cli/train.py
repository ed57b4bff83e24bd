#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""qkv train: it learns, at parties and from arrays; it can be stopped and resumed without a bit of
difference; what goes wrong is told, and old files stay whole. Usage: train.py QKV"""

import math
import os
import pty
import re
import resource
import signal
import struct
import subprocess

import command
from command import Case, npy, qkv, read

# Where a step takes long, fewer of them, and a rate that they are enough for.
SLOW = bool(command.WRAPPER) or command.SANITIZED
SHORT = ["--batch", "4", "--threads", "1"]
FILES = ["WK.npy", "WQ.npy", "WV.npy", "checkpoint.qkvt"]
HEAD = "<8s3Q7q3d"  # of a checkpoint: magic, checksum, version, likeness, ..
STEP = 9            # its field that holds the steps done
LINE = re.compile(r"^step +(\d+) +loss (\S+) +kept aside: loss (\S+) +(\w+) +(\S+) %", re.MULTILINE)


def noise(count, state):
    """Numbers between -1 and 1 that look random."""
    values = []
    for _ in range(count):
        state = state * 6364136223846793005 + 1442695040888963407 & 2 ** 64 - 1
        values.append((state >> 40) / 2 ** 23 - 1)
    return values


def floats(shape, values):
    return npy("<f4", repr(tuple(shape)), struct.pack(f"<{len(values)}f", *values))


def numbers(data):
    """The values of a .npy file of float32."""
    start = 10 + struct.unpack("<H", data[8:10])[0]
    return struct.unpack(f"<{(len(data) - start) // 4}f", data[start:])


def checksum(data):
    total = 0xcbf29ce484222325
    for byte in data:
        total = (total ^ byte) * 0x100000001b3 & 2 ** 64 - 1
    return total


class Train(Case):
    def train(self, *more, **keywords):
        return qkv("train", *SHORT, *more, **keywords)

    def kept(self, folder):
        self.assertEqual(sorted(os.listdir(self.path(folder))), FILES)
        return [read(os.path.join(self.path(folder), name)) for name in FILES]

    def same(self, before, now):
        """Told by name: unittest would compare the bytes line by line, for minutes."""
        self.assertEqual([name for name, a, b in zip(FILES, before, now) if a != b], [])

    def pair(self, sequences=24, tokens=5, d_model=6, width=4, edit=None):
        """--x and --target: attention with weights of ours over random tokens."""
        x = noise(sequences * tokens * d_model, 1)
        w = [noise(d_model * width, seed) for seed in (2, 3, 4)]
        y = []
        for s in range(sequences):
            rows = [x[(s * tokens + t) * d_model:][:d_model] for t in range(tokens)]
            q, k, v = ([[sum(row[i] * m[i * width + c] for i in range(d_model))
                         for c in range(width)] for row in rows] for m in w)
            for i in range(tokens):
                mass = [math.exp(sum(a * b for a, b in zip(q[i], key)) / math.sqrt(width))
                        for key in k]
                y += [sum(m * row[c] for m, row in zip(mass, v)) / sum(mass) for c in range(width)]
        if edit:
            edit(x, y)
        return ["--x", self.file("x.npy", floats((sequences, tokens, d_model), x)),
                "--target", self.file("y.npy", floats((sequences, tokens, width), y))]


class Parties(Train):
    def test_learns(self):
        """From chance to at least 99 % at parties that were not practised on."""
        more = ["--steps", "60", "--lr", "0.006", "--batch", "16"] if SLOW else []
        text = self.fine(qkv("train", *more, "--threads", "1"))
        lines = LINE.findall(text)
        self.assertEqual(lines[0][0], "0")
        self.assertEqual(lines[-1][0], "60" if SLOW else "1000")
        self.assertEqual({line[3] for line in lines}, {"accuracy"})
        self.assertLess(float(lines[0][4]), 10)
        self.assertGreaterEqual(float(lines[-1][4]), 99)
        self.assertLess(float(lines[-1][2]), float(lines[0][2]) / 10)

    def test_optimizers(self):
        """Each learns with the rate that is its default; what they learn differs."""
        learned = set()
        for optimizer in ("sgd", "momentum", "adamw"):
            with self.subTest(optimizer):
                text = self.fine(self.train(*self.pair(), "--optimizer", optimizer, "--steps", 25,
                                            "--out", self.path(optimizer)))
                first, *_, last = LINE.findall(text)
                self.assertLess(float(last[2]), 0.99 * float(first[2]))
                learned.add(self.kept(optimizer)[1])
        self.assertEqual(len(learned), 3)

    def test_seed(self):
        """The same seed learns the same weights, another one others."""
        weights = []
        for i, seed in enumerate((5, 5, 6)):
            self.fine(self.train("--steps", 2, "--seed", seed, "--out", self.path(f"{i}")))
            weights.append(self.kept(f"{i}"))
        self.same(weights[0], weights[1])
        self.assertTrue(all(a != b for a, b in zip(weights[0], weights[2])))

    def test_bar(self):
        """On a terminal there is a bar, on one line, with the time left."""
        master, slave = pty.openpty()
        with subprocess.Popen([*command.command(), "train", *SHORT, "--steps", "30"], stdout=slave,
                              stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}) as run:
            os.close(slave)
            text = b""
            try:
                while chunk := os.read(master, 4096):
                    text += chunk
            except OSError:
                pass  # the other side is closed
        os.close(master)
        self.assertEqual(run.returncode, 0)
        self.assertEqual(len(text.splitlines()), len(re.split(rb"\r\n|\r", text)) - 1)
        bars = re.findall(rb"\r\[([#.]+)\] step (\d+)/30  loss [\d.e-]+  accuracy [\d.]+ %"
                          rb"(  \d+ s left)?", text)
        self.assertEqual((bars[0][0], bars[0][1], bars[0][2]), (b"." * 16, b"0", b""))
        self.assertEqual((bars[-1][0], bars[-1][1], bars[-1][2]), (b"#" * 16, b"30", b"  0 s left"))
        self.assertNotIn(b"step      0", text)


class Resume(Train):
    def test_same_bits(self):
        """A run in two pieces leaves what one piece leaves, checkpoint included."""
        for optimizer in ("adamw",) if SLOW else ("adamw", "momentum"):
            with self.subTest(optimizer):
                how = ["--optimizer", optimizer, *(self.pair() if SLOW else [])]
                whole, pieces = self.path("whole " + optimizer), self.path("pieces " + optimizer)
                self.fine(self.train(*how, "--steps", 31, "--out", whole))
                self.fine(self.train(*how, "--steps", 13, "--out", pieces))
                self.fine(self.train(*how, "--steps", 31, "--out", pieces, "--resume"))
                self.same(self.kept(whole), self.kept(pieces))

    def stop(self, number):
        """Starts a run without an end, and sends it a signal when it has learned a little."""
        folder = self.path("stopped")
        with subprocess.Popen([*command.command(), "train", *SHORT, "--steps", "1000000000",
                               "--out", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as run:
            while not run.stdout.readline().startswith("step     25"):
                self.assertIsNone(run.poll())
            run.send_signal(number)
            rest = run.stdout.read()
        self.assertEqual(run.returncode, -number)
        stopped = int(re.search(r"^Stopped after step (\d+)\.$", rest, re.MULTILINE).group(1))
        head = struct.unpack_from(HEAD, self.kept("stopped")[3])
        self.assertEqual(head[STEP], stopped)
        return stopped

    def test_signals(self):
        """Stopped by a signal it says so, keeps the best weights, and goes on to the same bits."""
        for number in (signal.SIGINT,) if SLOW else (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                steps = self.stop(number) // 25 * 25 + 25
                for folder, more in (("stopped", ["--resume"]), (f"whole {number}", [])):
                    self.fine(self.train("--steps", steps, "--out", self.path(folder), *more))
                self.same(self.kept("stopped"), self.kept(f"whole {number}"))

    def test_done(self):
        """Nothing is left to do: nothing changes."""
        self.fine(self.train(*self.pair(), "--steps", 5, "--out", self.path("w")))
        before = self.kept("w")
        self.fine(self.train(*self.pair(), "--steps", 5, "--out", self.path("w"), "--resume"))
        self.same(before, self.kept("w"))

    def refuses(self, *parts, more=()):
        before = self.kept("w")
        done = self.train("--steps", 5, "--out", self.path("w"), "--resume", *more)
        self.complains(done, 1, "checkpoint.qkvt", *parts)
        self.same(before, self.kept("w"))

    def test_faults(self):
        self.fine(self.train("--steps", 3, "--out", self.path("w")))
        path = os.path.join(self.path("w"), "checkpoint.qkvt")
        good = read(path)
        version = bytearray(good)
        version[16] = 2
        fits = bytearray(good[:-4])  # a right checksum does not make up for a wrong size
        fits[8:16] = struct.pack("<Q", checksum(fits[16:]))
        for data, text in ((b"", "is no checkpoint"), (b"QKVTRAIM" + good[8:], "is no checkpoint"),
                           (good[:50], "is damaged: it ends in its head"),
                           (good[:-1], "is damaged: its checksum is wrong"),
                           (good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], "its checksum is wrong"),
                           (bytes(version), "is a checkpoint of version 2; 1 is known"),
                           (bytes(fits), "is damaged: its size is wrong")):
            with self.subTest(text):
                command.write(path, data)
                self.refuses(text)
        command.write(path, good)
        self.refuses("--heads 1, which cannot go on with 2", more=["--heads", "2"])
        self.refuses("--seed 1, which cannot go on with 2", more=["--seed", "2"])
        self.refuses("--optimizer adamw, which cannot go on with sgd", more=["--optimizer", "sgd"])

    def test_missing(self):
        done = self.train("--out", self.path("w"), "--resume")
        self.complains(done, 1, "w/checkpoint.qkvt", "No such file")

    def test_other_data(self):
        """Arrays of the same shape with another number in them."""
        self.fine(self.train(*self.pair(), "--steps", 3, "--out", self.path("w")))
        def edit(x, y):
            del y
            x[7] += 1
        self.refuses("is of a run on other data", more=self.pair(edit=edit))
        self.refuses("is of a run on other data", more=[*self.pair(), "--causal"])


class Fit(Train):
    def test_learns(self):
        """It finds weights that give the target, also where it was not trained; qkv attend takes
        them."""
        w = self.path("w")
        text = self.fine(qkv("train", *self.pair(40), "--holdout", "0.25", "--lr", "0.02",
                             "--steps", 400, "--threads", "1", "--out", w))
        lines = LINE.findall(text)
        self.assertEqual(lines[-1][3], "explained")
        self.assertGreater(float(lines[-1][4]), 97)
        self.assertIn("Best on 10 kept aside: loss ", text)
        best = float(re.search(r"loss (\S+), at step", text).group(1))
        self.fine(qkv("attend", "--x", self.path("x.npy"), "--wq", w + "/WQ.npy", "--wk",
                      w + "/WK.npy", "--wv", w + "/WV.npy", "--out", self.path("o.npy")))
        kept = slice(30 * 5 * 4, None)
        y, o = (numbers(read(self.path(name)))[kept] for name in ("y.npy", "o.npy"))
        loss = sum((a - b) ** 2 for a, b in zip(y, o)) / len(y)
        self.assertAlmostEqual(loss, best, delta=1e-3 * best + 1e-9)

    def test_causal(self):
        """The causal run is another one, and heads another one again."""
        learned = set()
        for more in ([], ["--causal"], ["--heads", "2"]):
            self.fine(self.train(*self.pair(), "--steps", 10, *more, "--out", self.path("w")))
            learned.add(self.kept("w")[1])
        self.assertEqual(len(learned), 3)

    def test_holdout(self):
        for share, count in (("0", 24), ("0.01", 1), ("0.5", 12)):
            text = self.fine(self.train(*self.pair(), "--steps", 1, "--holdout", share))
            self.assertIn(f"Best on {count} kept aside", text)

    def bad(self, x, y, *parts, more=()):
        files = ["--x", self.file("x.npy", x), "--target", self.file("y.npy", y)]
        self.complains(self.train(*files, *more, "--out", self.path("w")), 1, *parts)
        self.assertNotIn("w", self.names())

    def test_shapes(self):
        f32 = command.f32
        self.bad(f32(4, 3, 8), f32(4, 2, 8), "y.npy", "(4, 2, 8), but", "(4, 3, 8)",
                 "batch and tokens must be the same")
        self.bad(f32(4, 3, 8), f32(5, 3, 8), "y.npy", "(5, 3, 8)")
        self.bad(f32(12, 8), f32(4, 3, 8), "x.npy", "(12, 8); [batch, tokens, d_model] is needed")
        self.bad(f32(4, 3, 8), f32(12, 8), "y.npy", "[batch, tokens, heads * head_dim] is needed")
        self.bad(f32(4, 0, 8), f32(4, 0, 8), "x.npy", "there is nothing in it")
        self.bad(f32(4, 3, 8), f32(4, 3, 9), "--heads", "2 heads do not divide the width of 9",
                 more=["--heads", "2"])
        self.bad(f32(4, 3, 8), f32(4, 3, 513), "--heads", "wider than 512")
        self.bad(f32(1, 3, 8), f32(1, 3, 8), "--holdout", "of 1 sequence leaves none to train on")
        self.bad(f32(4, 3, 8)[:-1], f32(4, 3, 8), "x.npy", "truncated")

    def test_not_finite(self):
        for value, text in ((math.nan, "nan"), (math.inf, "inf")):
            values = noise(24, 1)
            values[13] = value
            bad, good = floats((2, 3, 4), values), floats((2, 3, 4), noise(24, 2))
            self.bad(bad, good, "x.npy", f"holds {text} at [1, 0, 1]")
            self.bad(good, bad, "y.npy", f"holds {text} at [1, 0, 1]")


class Trouble(Train):
    def test_diverges(self):
        """Steps so long that the weights grow a thousandfold each: it stops, and keeps weights that
        are numbers."""
        done = self.train(*self.pair(), "--optimizer", "sgd", "--lr", "1000", "--weight-decay", "1",
                          "--out", self.path("w"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aqkv: train: step \d+: the gradient of W\^[QKV] holds NaN "
                                      r"or infinity; the weights of step 0 are the last good ones "
                                      r"and are kept\n\Z")
        for data in self.kept("w")[:3]:
            self.assertTrue(all(map(math.isfinite, numbers(data))))

    def test_no_good_weights(self):
        """Numbers too large for float32 from the first step on: an old folder stays as it was."""
        self.fine(self.train("--steps", 3, "--out", self.path("w")))
        before = self.kept("w")
        def edit(x, y):
            x[:] = [value * 1e30 for value in x]
            del y
        done = self.train(*self.pair(edit=edit), "--out", self.path("w"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("step 1: the gradient of W^Q holds NaN or infinity; there are no good weights",
                      done.stderr)
        self.same(before, self.kept("w"))

    def test_loss_that_is_no_number(self):
        """Gradients that are numbers, and a loss that never is."""
        def edit(x, y):
            del x
            y[:] = [value * 1e25 for value in y]
        done = self.train(*self.pair(edit=edit), "--steps", 3, "--out", self.path("w"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("there are no good weights", done.stderr)

    def test_no_room(self):
        """The disk is full before the last file is written: all old ones are whole."""
        folder = self.path("w")
        self.fine(self.train("--steps", 3, "--out", folder))
        before = self.kept("w")
        done = self.train("--steps", 3, "--seed", 2, "--out", folder, preexec_fn=lambda: (
            resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aqkv: \S+/checkpoint.qkvt: File too large\n\Z")
        self.same(before, self.kept("w"))

    def test_full_device(self):
        folder = self.path("w")
        os.mkdir(folder)
        os.symlink("/dev/full", os.path.join(folder, "WV.npy"))
        done = self.train("--steps", 1, "--out", folder)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aqkv: \S+/WV.npy: No space left on device\n\Z")
        self.assertEqual(os.listdir(folder), ["WV.npy"])

    def test_no_folder(self):
        self.complains(self.train("--out", self.file("w", b"")), 1, "w", "is no folder")
        self.complains(self.train("--out", self.path("a/b")), 1, "a/b", "No such file")


if __name__ == "__main__":
    command.main()
