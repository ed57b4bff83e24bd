#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs programs on an x86 CPU that Bochs plays, AVX-512 included.

    tools/legs/bochs.py [--cpu MODEL] [--seconds N] -- [NAME=VALUE]... PROGRAM [ARGUMENT]...

A Linux kernel starts from an image that holds the programs, what ldd names for them, and a script
that runs them one after the other. What they say comes back over the serial line. Several commands
are separated by an argument ";".
"""

import argparse
import dataclasses
import glob
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUSYBOX = "/bin/busybox"
MEMORY = 512  # MiB
IPS = 20_000_000
BASE = 0x100000  # where bochs.S loads the disk's contents to
PAGE = 4096
MARK = "@qkv "
# Bochs 2.7 gets wrong: the sizes of XSAVES and of PKU's state, and a memmove that trusts FSRM.
KERNEL_OPTIONS = ("console=ttyS0,115200 quiet mitigations=off nokaslr acpi=off nosmp"
                  " cryptomgr.notests panic=-1 clearcpuid=pku,xsavec,xsaves,fsrm")

CONFIGURATION = """\
config_interface: textconfig
display_library: {display}
plugin_ctrl: speaker=0, gameport=0, parallel=0
cpu: model={cpu}, count=1, ips={ips}, reset_on_triple_fault=0
memory: guest={memory}, host={memory}
romimage: file={rom}
vgaromimage: file={rom}
pci: enabled=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=flat, path={disk}
com1: enabled=1, mode=file, dev={serial}
clock: sync=none, time0=utc
log: {log}
panic: action=fatal
error: action=report
mouse: enabled=0
"""

INIT = f"""\
#!{BUSYBOX} sh
{BUSYBOX} mount -t proc proc /proc
{BUSYBOX} stty -F /dev/ttyS0 raw
exec >/dev/ttyS0 2>/dev/null </dev/null
show() {{
    [ ! -s "$2" ] || {BUSYBOX} sed "s/^/@$1 /" "$2"
}}
for command in /commands/*; do
    echo "{MARK}run"
    CK_TAP_LOG_FILE_NAME=/said/tap {BUSYBOX} sh "$command" >/said/out 2>/said/err
    echo "{MARK}exit $?"
    show o /said/out
    show e /said/err
    show t /said/tap
    {BUSYBOX} rm -f /said/*
done
echo "{MARK}done"
while :; do {BUSYBOX} sleep 1000; done
"""


class Missing(Exception):
    """What this machine lacks, in a few words."""


@dataclasses.dataclass
class Result:
    """What a command came to; status is None if it did not end in time."""

    status: object = None
    out: str = ""
    err: str = ""
    tap: str = ""


def archive(entries):
    """A cpio archive as the kernel unpacks it; entries are (name, mode, contents, device)."""
    image = bytearray()
    for number, (name, mode, contents, device) in enumerate(
            [*entries, ("TRAILER!!!", 0, b"", (0, 0))]):
        name = name.encode() + b"\0"
        fields = (number + 1, mode, 0, 0, 1, 0, len(contents), 0, 0, *device, len(name), 0)
        image += b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name
        image += bytes(-len(image) % 4) + contents
        image += bytes(-len(image) % 4)
    return bytes(image)


def libraries(program):
    """The files that ldd names; none for a static program."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return [word for line in said.stdout.splitlines() for word in line.split()
            if word.startswith("/") and os.path.exists(word)]


def quoted(word):
    return "'" + word.replace("'", "'\\''") + "'"


def split(command):
    """The settings in front of a command, and the command, its program as an absolute path."""
    settings = []
    while command and "=" in command[0]:
        settings.append(command[0])
        command = command[1:]
    if not command:
        raise SystemExit("bochs.py: no program")
    return settings, [os.path.abspath(command[0]), *command[1:]]


def script(command):
    settings, words = split(command)
    lines = [f"export {quoted(setting)}" for setting in settings]
    return "\n".join([*lines, "exec " + " ".join(map(quoted, words)), ""])


def root_files(commands):
    """Everything that the guest's file system holds: {path: contents}."""
    files = {"/init": INIT.encode()}
    paths = {BUSYBOX}
    for number, command in enumerate(commands):
        files[f"/commands/{number:04}"] = script(command).encode()
        program = split(command)[1][0]
        paths |= {program, *libraries(program)}
        # An argument that is a file of this machine goes along.
        paths |= {word for word in split(command)[1][1:] if os.path.isfile(word)}
    for path in paths:
        with open(path, "rb") as file:
            files[os.path.abspath(path)] = file.read()
    return files


def initramfs(commands):
    files = root_files(commands)
    folders = {"/dev", "/proc", "/said", "/tmp"}
    for path in files:
        while path := path.rpartition("/")[0]:
            folders.add(path)
    entries = [(path[1:], 0o40755, b"", (0, 0)) for path in sorted(folders)]
    entries += [("dev/console", 0o20600, b"", (5, 1)), ("dev/ttyS0", 0o20600, b"", (4, 64)),
                ("dev/null", 0o20666, b"", (1, 3)), ("dev/zero", 0o20666, b"", (1, 5)),
                ("dev/urandom", 0o20666, b"", (1, 9))]
    entries += [(path[1:], 0o100755, contents, (0, 0)) for path, contents in files.items()]
    return archive(entries)


def padded(contents, size=PAGE):
    return contents + bytes(-len(contents) % size)


def disk(kernel, initrd):
    """What bochs.S loads to BASE: the kernel's parameters, its command line, the initramfs, and the
    kernel. See Documentation/x86/boot.rst of Linux for the numbers."""
    setup = kernel[0x1f1:0x202 + kernel[0x201]]
    protected = kernel[(setup[0] + 1) * 512:]
    body = padded(initrd)
    parameters = bytearray(PAGE)
    parameters[0x1f1:0x1f1 + len(setup)] = setup
    parameters[0x210] = 0xff  # a loader without a number of its own
    struct.pack_into("<III", parameters, 0x214, BASE + 2 * PAGE + len(body), BASE + 2 * PAGE,
                     len(initrd))
    struct.pack_into("<I", parameters, 0x228, BASE + PAGE)
    usable = [(0, 0x9f000), (BASE, (MEMORY << 20) - BASE)]
    parameters[0x1e8] = len(usable)
    for number, (start, size) in enumerate(usable):
        struct.pack_into("<QQI", parameters, 0x2d0 + 20 * number, start, size, 1)
    line = KERNEL_OPTIONS.encode().ljust(PAGE, b"\0")
    return padded(bytes(parameters) + line + body + protected, 16 * 63 * 512)


def rom(folder):
    """bochs.S in machine code."""
    made = os.path.join(folder, "rom.o")
    image = os.path.join(folder, "rom")
    subprocess.run(["gcc", "-c", os.path.join(HERE, "bochs.S"), "-o", made], check=True)
    subprocess.run(["objcopy", "-O", "binary", made, image], check=True)
    return image


def find_kernel():
    found = os.environ.get("QKV_KERNEL") or max(glob.glob("/boot/vmlinuz-*-cloud-amd64"), default="")
    if not found:
        raise Missing("kernel for Bochs")
    return found


def emulator():
    """Bochs, and how it shows the screen that nobody looks at."""
    own = os.environ.get("QKV_BOCHS")
    return (own, "nogui") if own else ("bochs", "term")


def start(folder, settings):
    """Bochs in a terminal of its own: Debian's has no display but those for terminals."""
    program, display = emulator()
    config = os.path.join(folder, "bochsrc")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIGURATION.format(display=display, **settings))
    go = os.path.join(folder, "go")
    with open(go, "w", encoding="utf-8") as file:
        file.write("c\n")  # Debian's has the debugger, which waits for this
    command = [program, "-q", "-f", config]
    if program == "bochs" or os.environ.get("QKV_BOCHS_DEBUGGER"):
        command += ["-rc", go]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "linux"
        os.execvp(command[0], command)
    return pid, terminal


def watch(pid, terminal, serial, seconds, echo):
    """Waits for the end mark in the serial line's file; returns the file's lines."""
    deadline = time.monotonic() + seconds
    said = ""
    alive = True
    screen = b""
    while alive and MARK + "done" not in said and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                screen = (screen + os.read(terminal, 65536))[-4000:]
            except OSError:
                alive = False
        if os.path.exists(serial):
            with open(serial, encoding="utf-8", errors="replace") as file:
                new = file.read()
            if echo:
                echo(new[len(said):])
            said = new
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    if not alive and not said:
        said = screen.decode(errors="replace")
    return said.replace("\r", "").splitlines()


def read(lines, count):
    """The results in what came over the serial line."""
    results = [Result() for _ in range(count)]
    number = -1
    parts = {"@o ": "out", "@e ": "err", "@t ": "tap"}
    for line in lines:
        if line == MARK + "run":
            number += 1
        elif line.startswith(MARK + "exit "):
            results[number].status = int(line.split()[-1])
        elif line[:3] in parts and number >= 0:
            part = parts[line[:3]]
            setattr(results[number], part, getattr(results[number], part) + line[3:] + "\n")
    return results


def run(commands, cpu="tigerlake", seconds=600, echo=None):
    """Runs commands (lists of words, settings in front) and returns (results, serial lines)."""
    with tempfile.TemporaryDirectory(prefix="qkv-bochs.") as folder:
        with open(find_kernel(), "rb") as file:
            kernel = file.read()
        image = os.path.join(folder, "disk")
        with open(image, "wb") as file:
            file.write(disk(kernel, initramfs(commands)))
        serial = os.path.join(folder, "serial")
        settings = {"cpu": cpu, "ips": os.environ.get("QKV_BOCHS_IPS", IPS), "memory": MEMORY,
                    "rom": rom(folder), "disk": image, "serial": serial,
                    "log": os.path.join(folder, "log")}
        pid, terminal = start(folder, settings)
        lines = watch(pid, terminal, serial, seconds, echo)
        if kept := os.environ.get("QKV_BOCHS_KEEP"):
            shutil.copytree(folder, kept, dirs_exist_ok=True)
    return read(lines, len(commands)), lines


def commands_of(words):
    commands = [[]]
    for word in words:
        if word == ";":
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def main():
    parser = argparse.ArgumentParser(prog="tools/legs/bochs.py", usage=__doc__)
    parser.add_argument("--cpu", default="tigerlake")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--serial", action="store_true")
    parser.add_argument("words", nargs="+")
    asked = parser.parse_args()
    commands = commands_of(asked.words)
    echo = (lambda text: print(text, end="", file=sys.stderr, flush=True)) if asked.serial else None
    results, lines = run(commands, asked.cpu, asked.seconds, echo)
    worst = 0
    for command, result in zip(commands, results):
        sys.stdout.write(result.out)
        sys.stderr.write(result.err)
        if result.tap:
            print("TAP:\n" + result.tap, end="")
        print(f"[{' '.join(command)}: exit status {result.status}]")
        worst = worst or (1 if result.status is None else result.status)
    if any(result.status is None for result in results) and not asked.serial:
        print("\n".join(lines[-30:]), file=sys.stderr)
    return worst


if __name__ == "__main__":
    sys.exit(main())
