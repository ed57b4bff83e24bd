# SPDX-License-Identifier: Apache-2.0
"""Runs the built command for the tests beside this file, natively or under meson's exe_wrapper.

A script of tests calls main(): its first argument is the command, the rest its own. Every case
counts as one test: they are written as TAP to $CK_TAP_LOG_FILE_NAME, as Check does. The exit
status is 0, 1 if a case failed, or 77 if all were skipped.
"""

import contextlib
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

SKIPPED = 77
WRAPPER = shlex.split(os.environ.get("MESON_EXE_WRAPPER", ""))
SANITIZED = os.environ.get("QKV_SANITIZED", "none") != "none"
arguments = sys.argv[1:]


def skip_all(reason):
    print(f"skip: {reason}")
    sys.exit(SKIPPED)


def command():
    """The command line that starts qkv."""
    if WRAPPER and not shutil.which(WRAPPER[0]):
        skip_all(f"{WRAPPER[0]} is not there to run the command")
    return [*WRAPPER, os.path.abspath(arguments[0])]


def qkv(*args, env=None, **more):
    """Runs the command with these arguments; env is added to the environment."""
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith("QKV_CPU_") and name not in ("QKV_DATA", "NO_COLOR")}
    done = subprocess.run([*command(), *map(str, args)], env={**clean, **(env or {})},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", timeout=300, check=False, **more)
    if WRAPPER:
        # What the emulator says about itself.
        done.stderr = re.sub(r"^qemu-\S+: warning: .*\n", "", done.stderr, flags=re.MULTILINE)
    return done


def npy(descr, shape, data, order="False", version=(1, 0), header=None):
    """The bytes of a .npy file, as wrong as one likes."""
    if header is None:
        header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = header.encode("utf-8")
    width = "<H" if version[0] == 1 else "<I"
    prefix = b"\x93NUMPY" + bytes(version)
    fill = -(len(prefix) + struct.calcsize(width) + len(text) + 1) % 64
    text += b" " * fill + b"\n"
    return prefix + struct.pack(width, len(text)) + text + data


def f32(*shape):
    """A valid file of small numbers of this shape."""
    count = 1
    for size in shape:
        count *= size
    values = [(i * 37 % 19) / 8 - 1 for i in range(count)]
    return npy("<f4", repr(tuple(shape)), struct.pack(f"<{count}f", *values))


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="qkv-cli.")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def file(self, name, data):
        return write(self.path(name), data)

    def names(self):
        return sorted(os.listdir(self.folder))

    def inputs(self, q=(3, 4), k=(5, 4), v=(5, 4)):
        """--q, --k and --v with files that are fine."""
        return ["--q", self.file("q.npy", f32(*q)), "--k", self.file("k.npy", f32(*k)),
                "--v", self.file("v.npy", f32(*v))]

    def fine(self, done):
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def complains(self, done, status, *parts):
        """Ended with this status and one line on stderr that holds these parts in order."""
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"\Aqkv: [^\n]+: [^\n]+\n\Z")
        at = 0
        for part in parts:
            self.assertIn(part, done.stderr[at:])
            at = done.stderr.index(part, at) + len(part)


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def write_tap(tests, result):
    path = os.environ.get("CK_TAP_LOG_FILE_NAME")
    if not path:
        return
    # A subtest stands for the test that it belongs to.
    bad = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
    skipped = {test.id() for test, _ in result.skipped}
    with open(path, "w", encoding="utf-8") as file:
        print(f"1..{len(tests)}", file=file)
        for number, test in enumerate(tests, 1):
            word = "not ok" if test.id() in bad else "# skipped" if test.id() in skipped else "ok"
            print(f"{word} {number} - {test.id()}", file=file)


def main():
    """Runs every Case of the calling script."""
    command()
    loaded = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    tests = list(flatten(loaded))
    with contextlib.redirect_stderr(sys.stdout):
        result = unittest.TextTestRunner(sys.stdout, verbosity=1).run(unittest.TestSuite(tests))
    for test, reason in result.skipped:
        print(f"skip: {test.id()}: {reason}")
    write_tap(tests, result)
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(SKIPPED if len(result.skipped) == len(tests) else 0)
