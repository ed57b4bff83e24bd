#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every fault that a .npy file can have, in and out: one clear line, exit status 1, no output
file left behind, and an old one as it was. Usage: npy_faults.py QKV"""

import os
import resource
import shutil
import struct
import subprocess
import unittest

import command
from command import Case, f32, npy, qkv, read

GOOD = struct.pack("<12f", *range(12))
FITS = "(3, 4)"

# name: (bytes, what the complaint says)
FAULTS = {
    "empty": (b"", "not a .npy file"),
    "text": (b"hello, this is no array\n" * 9, "not a .npy file"),
    "wrong magic": (b"\x94" + f32(3, 4)[1:], "not a .npy file"),
    "magic alone": (b"\x93NUMPY", "truncated in its header"),
    "no length": (b"\x93NUMPY\x01\x00\x10", "truncated in its header"),
    "no length of 4 bytes": (b"\x93NUMPY\x02\x00\x10\x00", "truncated in its header"),
    "half a header": (f32(3, 4)[:40], "truncated in its header"),
    "huge header": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "truncated in its header"),
    "no data": (f32(3, 4)[:-48], "truncated: its shape needs 48 bytes of data, 0 are there"),
    "one byte short": (f32(3, 4)[:-1], "needs 48 bytes of data, 47 are there"),
    "one trailing byte": (f32(3, 4) + b"\0", "has 1 trailing byte"),
    "many trailing bytes": (f32(3, 4) + bytes(5000), "has 5000 trailing bytes"),
    "version 0": (npy("<f4", FITS, GOOD, version=(0, 0)), "version 0.0"),
    "version 4": (npy("<f4", FITS, GOOD, version=(4, 0)), "version 4.0"),
    "version 1.1": (npy("<f4", FITS, GOOD, version=(1, 1)), "version 1.1"),
    "Fortran order": (npy("<f4", FITS, GOOD, order="True"), "Fortran order"),
    "order is a number": (npy("<f4", FITS, GOOD, order="0"), "True or False expected"),
    "big-endian": (npy(">f4", FITS, GOOD), "big-endian ('>f4')"),
    "big-endian float64": (npy(">f8", FITS, GOOD * 2), "big-endian ('>f8')"),
    "objects": (npy("|O", FITS, GOOD), "Python objects"),
    "records": (npy([("a", "<f4")], FITS, GOOD), "records"),
    "int32": (npy("<i4", FITS, GOOD), "dtype '<i4'"),
    "float16": (npy("<f2", FITS, GOOD[:24]), "dtype '<f2'"),
    "complex": (npy("<c8", FITS, GOOD * 2), "dtype '<c8'"),
    "string": (npy("<U3", FITS, GOOD * 3), "dtype '<U3'"),
    "a long dtype": (npy("x" * 300, FITS, GOOD), "dtype 'xxxxxxxxxxxxxxxxxxxx'"),
    "no dtype": (npy("", FITS, GOOD), "dtype ''"),
    "bool for numbers": (npy("|b1", FITS, GOOD[:12]), "bool or uint8; float32 or float64"),
    "uint8 for numbers": (npy("|u1", FITS, GOOD[:12]), "bool or uint8; float32 or float64"),
    "negative": (npy("<f4", "(-3, 4)", GOOD), "negative dimension"),
    "negative, twice": (npy("<f4", "(-3, -4)", GOOD), "negative dimension"),
    "2^64": (npy("<f4", f"({2 ** 64}, 4)", GOOD), "too large"),
    "2^63": (npy("<f4", f"({2 ** 63}, 4)", GOOD), "too large"),
    "product overflows": (npy("<f4", f"({2 ** 32}, {2 ** 32})", GOOD), "too large"),
    "product overflows to 48": (npy("<f4", f"({2 ** 62}, 16)", b""), "too large"),
    "bytes overflow": (npy("<f8", f"({2 ** 60}, 1)", GOOD), "too large"),
    "overflow hidden by 0": (npy("<f4", f"({2 ** 62}, {2 ** 62}, 0, 4)", b""), "too large"),
    "large but truncated": (npy("<f4", "(1000000000, 1000)", GOOD), "truncated"),
    "nine dimensions": (npy("<f4", "(1, 1, 1, 1, 1, 1, 1, 3, 4)", GOOD), "8 dimensions"),
    "five dimensions": (npy("<f4", "(1, 1, 1, 3, 4)", GOOD), "shape (1, 1, 1, 3, 4)"),
    "one dimension": (npy("<f4", "(12,)", GOOD), "shape (12,)"),
    "no dimension": (npy("<f4", "()", GOOD[:4]), "shape ()"),
    "last dimension 0": (npy("<f4", "(3, 0)", b""), "last dimension is empty"),
    "shape is a list": (npy("<f4", "[3, 4]", GOOD), "a shape expected"),
    "shape is a number": (npy("<f4", "12", GOOD), "a shape expected"),
    "shape has a float": (npy("<f4", "(3.0, 4)", GOOD), "end of the shape expected"),
    "shape has a name": (npy("<f4", "(x, 4)", GOOD), "a dimension expected"),
    "shape without end": (npy("", "", GOOD, header="{'shape': (3, 4"), "end of the shape"),
    "no dictionary": (npy("", "", GOOD, header="(3, 4)"), "'{' expected"),
    "no end": (npy("", "", GOOD, header="{'descr': '<f4'"), "'}' expected"),
    "no colon": (npy("", "", GOOD, header="{'descr' '<f4'}"), "a colon expected"),
    "string without end": (npy("", "", GOOD, header="{'descr"), "end of a string expected"),
    "key is a number": (npy("", "", GOOD, header="{7: '<f4'}"), "a string expected"),
    "unknown key": (npy("", "", GOOD, header="{'dtype': '<f4'}"), "descr, fortran_order or shape"),
    "nothing in it": (npy("", "", GOOD, header="{}"), "descr, fortran_order and shape expected"),
    "shape is missing": (npy("", "", GOOD, header="{'descr': '<f4', 'fortran_order': False}"),
                         "descr, fortran_order and shape expected"),
    "descr twice": (npy("", "", GOOD, header="{'descr': '<f4', 'descr': '<f4'}"), "two entries"),
    "something behind": (npy("", "", GOOD, header="{'descr': '<f4', 'fortran_order': False, "
                             "'shape': (3, 4)} + 1"), "the end expected"),
    "zero bytes": (npy("", "", GOOD, header="\0" * 50), "'{' expected"),
}

# Files that are fine and look unusual.
UNUSUAL = {
    "version 2": npy("<f4", FITS, GOOD, version=(2, 0)),
    "version 3": npy("<f4", FITS, GOOD, version=(3, 0)),
    "float64": npy("<f8", FITS, struct.pack("<12d", *range(12))),
    "Python 2": npy("<f4", "(3L, 4L)", GOOD),
    "other order, no spaces": npy("", "", GOOD, header='{"shape":(3,4,),"fortran_order":False,'
                                                       '"descr":"<f4"}'),
}

# Every option that reads numbers, with options that make it matter.
FILES = ["--q", "--k", "--v", "--x", "--wq", "--wk", "--wv", "--bq", "--bk", "--bv",
         "--alibi", "--sinks", "--bias"]
PROJECTION = {"--x": (3, 4), "--wq": (4, 4), "--wk": (4, 4), "--wv": (4, 4), "--bq": (4,),
              "--bk": (4,), "--bv": (4,)}


class Reading(Case):
    def fails(self, data, *parts):
        arguments = self.inputs()
        bad = self.file("q.npy", data)
        out = self.path("out.npy")
        before = self.names()
        done = qkv("attend", *arguments, "--out", out)
        self.complains(done, 1, bad, *parts)
        self.assertEqual(self.names(), before)

    def test_unusual(self):
        answers = set()
        for name, data in UNUSUAL.items():
            with self.subTest(name):
                arguments = self.inputs()
                self.file("q.npy", data)
                self.fine(qkv("attend", *arguments, "--out", self.path("out.npy")))
                answers.add(read(self.path("out.npy")))
        self.assertEqual(len(answers), 1)

    def test_every_option(self):
        """Each option that names a file complains of its file."""
        for option in FILES:
            with self.subTest(option):
                arguments = self.inputs()
                if option in PROJECTION:
                    arguments = []
                    for name, shape in PROJECTION.items():
                        arguments += [name, self.file(name[2:] + ".npy", f32(*shape))]
                bad = self.file("bad.npy", f32(3, 4)[:-1])
                if option in arguments:
                    arguments[arguments.index(option) + 1] = bad
                else:
                    arguments += [option, bad]
                done = qkv("attend", *arguments, "--out", self.path("out.npy"))
                self.complains(done, 1, "bad.npy", "truncated")
                self.assertFalse(os.path.exists(self.path("out.npy")))

    def test_mask(self):
        for descr, data, text in [("|b1", bytes(14), "truncated"), ("<f4", bytes(60), "bool or uint8"),
                                  ("|i1", bytes(15), "dtype '|i1'")]:
            with self.subTest(descr):
                bad = self.file("mask.npy", npy(descr, "(3, 5)", data))
                done = qkv("attend", *self.inputs(), "--mask", bad, "--out", self.path("out.npy"))
                self.complains(done, 1, bad, text)

    def test_missing(self):
        arguments = self.inputs()
        os.remove(self.path("k.npy"))
        done = qkv("attend", *arguments, "--out", self.path("out.npy"))
        self.complains(done, 1, self.path("k.npy"), "No such file")

    def test_directory(self):
        arguments = self.inputs()
        os.remove(self.path("k.npy"))
        os.mkdir(self.path("k.npy"))
        done = qkv("attend", *arguments, "--out", self.path("out.npy"))
        self.complains(done, 1, self.path("k.npy"), "directory")

    def test_unreadable(self):
        arguments = self.inputs()
        os.chmod(self.path("k.npy"), 0)
        if os.access(self.path("k.npy"), os.R_OK):
            self.skipTest("this user may read every file")
        done = qkv("attend", *arguments, "--out", self.path("out.npy"))
        self.complains(done, 1, self.path("k.npy"), "Permission denied")

    def test_endless(self):
        """A device that never ends is refused by its first bytes."""
        arguments = self.inputs()
        arguments[1] = "/dev/zero"
        self.complains(qkv("attend", *arguments, "--show"), 1, "/dev/zero", "not a .npy file")

    def test_pipe(self):
        arguments = self.inputs()
        with subprocess.Popen(["cat", self.path("q.npy")], stdout=subprocess.PIPE) as cat:
            arguments[1] = f"/dev/fd/{cat.stdout.fileno()}"
            done = qkv("attend", *arguments, "--out", self.path("a.npy"),
                       pass_fds=[cat.stdout.fileno()])
        self.fine(done)
        arguments[1] = self.path("q.npy")
        self.fine(qkv("attend", *arguments, "--out", self.path("b.npy")))
        self.assertEqual(read(self.path("a.npy")), read(self.path("b.npy")))

    def test_name_with_newline(self):
        arguments = self.inputs()
        arguments[1] = self.path("two\nlines.npy")
        self.complains(qkv("attend", *arguments, "--show"), 1, "two?lines.npy", "No such file")


def reading_test(data, text):
    return lambda self: self.fails(data, text)


for fault, (content, words) in FAULTS.items():
    setattr(Reading, "test_fault_" + fault.replace(" ", "_"), reading_test(content, words))


class Writing(Case):
    """What happens when an output cannot be written."""

    def setUp(self):
        super().setUp()
        self.arguments = self.inputs(q=(40, 4))
        self.old = b"an old file, worth keeping"

    def test_mode(self):
        """A new file gets the mode that the umask leaves, a replaced one keeps its own."""
        out = self.path("out.npy")
        self.fine(qkv("attend", *self.arguments, "--out", out, umask=0o027))
        self.assertEqual(os.stat(out).st_mode & 0o777, 0o640)
        for mode in (0o600, 0o666):
            os.chmod(out, mode)
            self.fine(qkv("attend", *self.arguments, "--out", out, umask=0o022))
            self.assertEqual(os.stat(out).st_mode & 0o777, mode)

    def test_link(self):
        """A symbolic link stays one; the file behind it is replaced."""
        target, out = self.file("target.npy", self.old), self.path("out.npy")
        os.symlink("target.npy", out)
        self.fine(qkv("attend", *self.arguments, "--out", out))
        self.assertTrue(os.path.islink(out))
        self.assertEqual(read(target)[:6], b"\x93NUMPY")

    def test_link_to_nothing(self):
        out = self.path("out.npy")
        os.symlink("missing.npy", out)
        done = qkv("attend", *self.arguments, "--out", out)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aqkv: .*out.npy: No such file or directory\n\Z")
        self.assertTrue(os.path.islink(out))

    def test_longest_name(self):
        out = self.path("o" * 251 + ".npy")
        self.fine(qkv("attend", *self.arguments, "--out", out))
        self.assertEqual(read(out)[:6], b"\x93NUMPY")

    def test_input_is_output(self):
        self.fine(qkv("attend", *self.arguments, "--out", self.path("q.npy")))
        self.assertEqual(read(self.path("q.npy"))[:6], b"\x93NUMPY")

    def test_no_folder(self):
        out = self.path("nowhere/out.npy")
        self.complains(qkv("attend", *self.arguments, "--out", out), 1, out, "No such file")

    def test_file_as_folder(self):
        out = self.path("q.npy/out.npy")
        self.complains(qkv("attend", *self.arguments, "--out", out), 1, out, "Not a directory")

    def test_directory(self):
        out = self.path("folder")
        os.mkdir(out)
        self.complains(qkv("attend", *self.arguments, "--out", out), 1, out, "directory")
        self.assertEqual(os.listdir(out), [])

    def test_device(self):
        """A device is written to, not replaced."""
        self.fine(qkv("attend", *self.arguments, "--out", "/dev/null"))
        self.assertFalse(os.path.isfile("/dev/null"))

    def test_full_device(self):
        done = qkv("attend", *self.arguments, "--out", "/dev/full")
        self.complains(done, 1, "/dev/full", "No space left")

    def test_size_limit(self):
        """The first bytes can be written, then no more: the old file survives alone."""
        for existing in (False, True):
            with self.subTest(existing=existing):
                out = self.path("out.npy")
                if existing:
                    self.file("out.npy", self.old)
                before = self.names()
                done = qkv("attend", *self.arguments, "--out", out, preexec_fn=lambda: (
                    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))))
                self.complains(done, 1, out, "File too large")
                self.assertEqual(self.names(), before)
                if existing:
                    self.assertEqual(read(out), self.old)

    def test_full_disk(self):
        """A file system of four pages."""
        disk = self.path("disk")
        os.mkdir(disk)
        script = ('mount -t tmpfs -o size=16k none "$0" && echo old >"$0/old.npy" || exit 99\n'
                  '"$@"\ncode=$?\nls -A "$0"\ncat "$0/old.npy"\nexit $code')
        allowed = shutil.which("unshare") and subprocess.run(
            ["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
        if not allowed:
            self.skipTest("no small disk can be mounted here")
        big = self.file("big.npy", f32(3000, 4))
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, disk, *command.command(), "attend", "--q", big,
             *self.arguments[2:], "--out", disk + "/old.npy"],
            capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            self.skipTest("this user may not mount a small disk")
        self.assertEqual((done.returncode, done.stdout), (1, "old.npy\nold\n"))
        self.assertRegex(done.stderr, r"(?m)^qkv: .*old\.npy: No space left on device$")

    def test_all_or_nothing(self):
        """If the last of three outputs fails, none of the others appears."""
        self.file("lse.npy", self.old)
        before = self.names()
        done = qkv("attend", *self.arguments, "--out", self.path("out.npy"),
                   "--lse", self.path("lse.npy"), "--weights", "/dev/full")
        self.complains(done, 1, "/dev/full", "No space left")
        self.assertEqual(self.names(), before)
        self.assertEqual(read(self.path("lse.npy")), self.old)

    def test_full_stdout(self):
        """The answer that goes to stdout counts too."""
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([*command.command(), "attend", *self.arguments, "--show"],
                                  stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"(?m)^qkv: standard output: No space left on device$")


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    command.main()
