#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs programs on an x86 CPU that Bochs plays, which may have AVX-512 where this one has not.

    tools/legs/bochs.py [options] -- [NAME=VALUE]... PROGRAM [ARGUMENT]... [';' ...]

A Linux kernel starts on a machine without BIOS or network, in some ten seconds, and runs the
commands one after the other, each in the environment that is named and no other. They take about two
hundred times as long as here. What they said is shown at the end, with Check's TAP logs; the exit
status is the first that is not 0.

QKV_KERNEL names the kernel to use in place of Debian's, QKV_BOCHS another Bochs, one with display
library nogui and without debugger, and QKV_BOCHS_CPU what --cpu is if it is not given.
"""

import argparse
import dataclasses
import fcntl
import glob
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import termios
import time

import bochs_disk
import build

HERE = os.path.dirname(os.path.abspath(__file__))
KERNEL = "linux-image-cloud-amd64"  # Debian's, which has what a virtual machine needs built in
PROGRAMS = ("bochs", "busybox", "gcc", "objcopy")
MARK = bochs_disk.MARK
IPS = 50_000_000  # instructions that are a second of the devices' time; the clock runs by itself

CONFIGURATION = """\
config_interface: textconfig
display_library: {display}
plugin_ctrl: speaker=0
cpu: model={cpu}, ips={ips}, reset_on_triple_fault=0
memory: guest={memory}, host={memory}
romimage: file={folder}/rom
vgaromimage: file={folder}/rom
pci: enabled=0
ata0: enabled=1
ata0-master: type=disk, mode=flat, path={folder}/disk
com1: enabled=1, mode=file, dev={folder}/serial
clock: sync=none, time0=utc
log: {folder}/log
panic: action=fatal
error: action=report
"""


@dataclasses.dataclass
class Result:
    """What a command came to; status is None if it did not end."""

    status: object = None
    out: str = ""
    err: str = ""
    tap: str = ""


# ---- What is needed ----


def unpack_kernel(package, path):
    """Takes the kernel out of its package without installing it."""
    command = ["dpkg-deb", "--fsys-tarfile", package]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                if "/vmlinuz-" in member.name:
                    with open(path + ".part", "wb") as file:
                        shutil.copyfileobj(archive.extractfile(member), file)
                    os.replace(path + ".part", path)
        process.stdout.read()


def download_kernel(path):
    """The newest kernel that apt-get knows, to `path`; False if there is none to be had."""
    said = subprocess.run(["apt-cache", "depends", KERNEL], capture_output=True, text=True,
                          check=False, env={**os.environ, "LC_ALL": "C"})
    names = re.findall(r"Depends: (linux-image-\S+)", said.stdout)
    with tempfile.TemporaryDirectory(prefix="qkv-kernel.") as folder:
        subprocess.run(["apt-get", "-q", "download", *names[:1]], cwd=folder, capture_output=True,
                       stdin=subprocess.DEVNULL, check=False)
        for package in glob.glob(os.path.join(folder, "*.deb")):
            unpack_kernel(package, path)
    return os.path.exists(path)


def find_kernel():
    """A kernel's path: the one that is named, Debian's if it is installed, or a copy of it among
    the builds; None if it cannot be had."""
    named = os.environ.get("QKV_KERNEL")
    found = [named] if named else sorted(glob.glob("/boot/vmlinuz-*-cloud-amd64"))
    found = [path for path in found if os.access(path, os.R_OK)]
    if found or named:
        return found[-1] if found else None
    path = os.path.join(build.BASE, "bochs", "vmlinuz")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path if os.path.exists(path) or download_kernel(path) else None


def lacks():
    """What this machine does not have."""
    own = os.environ.get("QKV_BOCHS")
    missing = [name for name in PROGRAMS
               if not shutil.which(own if own and name == "bochs" else name)]
    if not missing and not find_kernel():
        missing.append(f"kernel for Bochs (apt-get download {KERNEL} brought none)")
    return missing


def make_rom(folder):
    made = os.path.join(folder, "rom.o")
    subprocess.run(["gcc", "-m64", "-c", os.path.join(HERE, "bochs.S"), "-o", made], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, os.path.join(folder, "rom")],
                   check=True)


# ---- The machine ----


class Machine:
    """One Bochs, from its start to the end of its last command."""

    def __init__(self, commands, cpu=None):
        self.count = len(commands)
        self.serial = b""
        self.screen = b""  # its last bytes
        self.gone = False
        self.folder = tempfile.mkdtemp(prefix="qkv-bochs.")
        try:
            make_rom(self.folder)
            with open(os.path.join(self.folder, "disk"), "wb") as file:
                file.write(bochs_disk.make(bochs_disk.contents_of(find_kernel()), commands))
            self.start(cpu or os.environ.get("QKV_BOCHS_CPU") or "tigerlake")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def start(self, cpu):
        """Debian's Bochs wants a terminal, which shows nothing of use, and, as it has the debugger,
        to be told to go on. It ends with the terminal, should this program be ended."""
        own = os.environ.get("QKV_BOCHS")
        config = os.path.join(self.folder, "bochsrc")
        go_on = os.path.join(self.folder, "go_on")
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(display="nogui" if own else "term", cpu=cpu, ips=IPS,
                                            memory=bochs_disk.MEMORY, folder=self.folder))
        with open(go_on, "w", encoding="utf-8") as file:
            file.write("continue\n")
        self.terminal, inside = pty.openpty()
        self.process = subprocess.Popen(
            [own or "bochs", "-q", "-f", config, *([] if own else ["-rc", go_on])],
            stdin=inside, stdout=inside, stderr=inside, env={**os.environ, "TERM": "linux"},
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(inside, termios.TIOCSCTTY, 0))
        os.close(inside)

    def look(self):
        """Takes in what there is to read."""
        if select.select([self.terminal], [], [], 0.1)[0]:
            try:
                self.screen = (self.screen + os.read(self.terminal, 65536))[-4000:]
            except OSError:
                self.gone = True  # nobody has the other end open any more
        path = os.path.join(self.folder, "serial")
        if os.path.exists(path):
            self.serial = bochs_disk.contents_of(path)

    @property
    def over(self):
        ends = ((MARK + "done").encode(), b"Kernel panic")
        return self.gone or any(end in self.serial for end in ends)

    def lines(self):
        """What the guest said, and what Bochs did where it ended or the guest said nothing."""
        said = self.serial + (self.screen if self.gone or not self.serial else b"")
        return said.decode(errors="replace").replace("\r", "").splitlines()

    def results(self):
        found = [Result() for _ in range(self.count)]
        parts = {"@o ": "out", "@e ": "err", "@t ": "tap"}
        number = -1
        for line in self.lines():
            if line == MARK + "run":
                number += 1
            elif number >= 0 and line.startswith(MARK + "exit "):
                found[number].status = int(line.split()[2])
            elif number >= 0 and line[:3] in parts:
                part = parts[line[:3]]
                setattr(found[number], part, getattr(found[number], part) + line[3:] + "\n")
        return found

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)
        shutil.rmtree(self.folder, ignore_errors=True)


def run(batches, cpu=None, seconds=600, watch=lambda machines: None):
    """Runs each batch of commands, (words, environment), on a machine of its own, side by side.
    Returns the machines, closed; what did not end in time has no status."""
    deadline = time.monotonic() + seconds
    machines = []
    try:
        for batch in batches:
            machines.append(Machine(batch, cpu))
        while not all(machine.over for machine in machines) and time.monotonic() < deadline:
            for machine in machines:
                if not machine.over:
                    machine.look()
            watch(machines)
    finally:
        for machine in machines:
            machine.close()
    return machines


# ---- By hand ----


def split(words):
    """The commands among words that ";" separates; each (words, environment)."""
    commands = [([], {})]
    for word in words:
        command, environment = commands[-1]
        name, equals, value = word.partition("=")
        if word == ";":
            commands.append(([], {}))
        elif equals and not command:
            environment[name] = value
        else:
            command.append(word if command else os.path.abspath(shutil.which(word) or word))
    return [command for command in commands if command[0]]


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=True)
    parser.add_argument("--cpu", help="corei7_skylake_x, corei7_icelake_u, tigerlake (with VNNI)")
    parser.add_argument("--seconds", type=float, default=600, help="when to give up")
    parser.add_argument("--serial", action="store_true", help="show the guest's lines as they come")
    parser.add_argument("words", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def show_new(shown):
    """Writes what machines said since the last call."""
    def watch(machines):
        text = machines[0].serial.decode(errors="replace").replace("\r", "")
        sys.stderr.write(text[shown[0]:])
        sys.stderr.flush()
        shown[0] = len(text)
    return watch


def main():
    asked = arguments()
    missing = lacks()
    if missing:
        raise SystemExit(f"bochs.py: this machine has no {', '.join(missing)}")
    commands = split(asked.words)
    watch = show_new([0]) if asked.serial else lambda machines: None
    machine = run([commands], asked.cpu, asked.seconds, watch)[0]
    results = machine.results()
    for (words, _), result in zip(commands, results):
        sys.stdout.write(result.out + result.tap)
        sys.stdout.flush()
        sys.stderr.write(result.err)
        print(f"[{' '.join(words)}: exit status {result.status}]", flush=True)
    if any(result.status is None for result in results):
        print("\n".join(machine.lines()[-30:]), file=sys.stderr)
    return next((1 if result.status is None else result.status for result in results
                 if result.status != 0), 0)


if __name__ == "__main__":
    sys.exit(main())
