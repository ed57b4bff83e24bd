# SPDX-License-Identifier: Apache-2.0
"""Build folders: configure with meson, compile with ninja, run tests, keep the logs."""

import glob
import json
import os
import shlex
import shutil
import subprocess
import tempfile

import results

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BASE = os.path.abspath(os.environ.get("QKV_BUILD_DIR") or os.path.join(ROOT, "build"))
WRAP = os.path.join(ROOT, "tools", "legs", "wrap")
JOBS = str(os.cpu_count() or 2)


class Failed(Exception):
    """A step that a leg cannot go on without; the message names the log."""


def shown(path):
    """A path as the user would type it."""
    return os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path


class Build:
    """One build folder. options are meson's, compilers its CC and CXX."""

    def __init__(self, name, options=(), **compilers):
        self.name = name
        self.folder = os.path.join(BASE, name)
        self.options = list(options)
        self.compilers = compilers

    def run(self, what, command, **environment):
        """Runs a command with its output in a log; a failure raises."""
        log = os.path.join(self.folder, f"qkv-{what}.log")
        with open(log, "w", encoding="utf-8") as file:
            code = subprocess.call(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT,
                                   env={**os.environ, **environment})
        if code:
            with open(log, encoding="utf-8", errors="replace") as file:
                print("".join(file.readlines()[-15:]), end="")
            raise Failed(f"{what}: {' '.join(command[:2])} failed ({shown(log)})")

    def configure(self):
        """Sets the folder up, again from nothing if it was set up in another way."""
        stamp = os.path.join(self.folder, "qkv-setup.json")
        wanted = {"options": self.options, "compilers": self.compilers}
        if os.path.exists(stamp):
            with open(stamp, encoding="utf-8") as file:
                if json.load(file) == wanted:
                    return
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.run("setup", ["meson", "setup", *self.options, self.folder, ROOT], **self.compilers)
        with open(stamp, "w", encoding="utf-8") as file:
            json.dump(wanted, file)

    def make(self, wanted=None):
        """Builds everything, or the programs of the wanted tests alone."""
        self.configure()
        programs = [] if wanted is None else self.programs_of(wanted)
        self.run("build", ["ninja", "-j", JOBS, "-C", self.folder, *programs])

    def programs_of(self, wanted):
        """The programs that the wanted tests run or are handed, relative to the build folder."""
        made = {name for target in self.introspect("--targets") for name in target["filename"]}
        named = {os.path.normpath(os.path.join(self.folder, part))
                 for test in self.introspect("--tests") if wanted(test) for part in test["cmd"]}
        return sorted(os.path.relpath(name, self.folder) for name in made & named)

    def introspect(self, what):
        return json.loads(subprocess.check_output(["meson", "introspect", what, self.folder]))

    def output(self, command):
        """What a command says, whatever comes of it."""
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def program(self, name):
        """The path of a program that was built."""
        for target in self.introspect("--targets"):
            if target["type"] == "executable" and target["name"] == name:
                return target["filename"][0]
        raise Failed(f"{self.name}: there is no program {name}")

    def tests(self, wanted):
        """Names of the tests that `wanted` (a function of meson's description) chooses."""
        return list(dict.fromkeys(test["name"] for test in self.introspect("--tests")
                                  if wanted(test)))

    def test(self, leg, names, prefix=(), patience=1, **environment):
        """Runs tests by name, behind the command in prefix, and returns their tally. patience
        multiplies the time limits of meson and of Check."""
        if not names:
            raise Failed(f"{leg}: no test to run")
        log = os.path.join(self.folder, f"qkv-test-{leg}.log")
        base = f"qkv-{leg}"
        for old in glob.glob(os.path.join(self.folder, "meson-logs", base + "*")):
            os.remove(old)
        command = [*prefix, "meson", "test", "-C", self.folder, "--no-rebuild", "--print-errorlogs",
                   "--num-processes", JOBS, "--timeout-multiplier", str(patience),
                   "--logbase", base, "--wrap", shlex.quote(WRAP), *names]
        with tempfile.TemporaryDirectory(prefix="qkv-tap.") as tap:
            with open(log, "w", encoding="utf-8") as file:
                status = subprocess.call(
                    command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT,
                    env={**os.environ, "QKV_RUNNER": "", **environment,
                         "CK_TIMEOUT_MULTIPLIER": str(patience),
                         "QKV_TAP_DIR": tap, "QKV_BUILT": self.folder})
            found = glob.glob(os.path.join(self.folder, "meson-logs", base + "*.json"))
            if not found:
                raise Failed(f"{leg}: meson test did not run ({shown(log)})")
            return results.read_meson(found[0], tap, shown(log), len(names), status)

    def script(self, what, command):
        """A script that prints `ok NAME` or `not ok NAME: why` for each thing it tried."""
        tally = results.Tally()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        log = os.path.join(self.folder, f"qkv-{what}.log")
        with open(log, "w", encoding="utf-8") as file:
            file.write(done.stdout + done.stderr)
        for line in done.stdout.splitlines():
            tally.passed += line.startswith("ok ")
            if line.startswith("not ok "):
                tally.failed.append(f"{line[len('not ok '):]} ({shown(log)})")
        if done.returncode and not tally.failed:
            tally.failed.append(f"exit status {done.returncode} ({shown(log)})")
        return tally
