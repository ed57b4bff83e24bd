# SPDX-License-Identifier: Apache-2.0
"""The disk of the machine that Bochs plays: a Linux kernel, and a file system in memory that holds
programs, the libraries they need, and a script that runs them one after the other.

What they say goes to the serial line: "@qkv run" before each command and "@qkv exit STATUS SECONDS"
after it, then the lines of its output with "@o ", of its errors with "@e ", and of Check's TAP log
with "@t " in front, and "@qkv done" at the end.
"""

import os
import re
import struct
import subprocess

BUSYBOX = "/bin/busybox"
MARK = "@qkv "
PAGE = 4096
SECTOR = 512
AT_ONCE = 128 * SECTOR  # what bochs.S reads at once, beyond the end of the contents, too
CYLINDER = 16 * 63 * SECTOR  # a disk has whole ones
BASE = 0x100000  # where bochs.S loads the disk to
MEMORY = 512  # MiB

# The C library does without the instructions for strings (ERMS): Debian's Bochs, having the
# debugger, takes their bytes one by one.
LIBRARY_SETTING = "GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS,-FSRM"

# acpi=off, nosmp: there is no BIOS to ask, and one processor. clearcpuid: Bochs 2.7 reports sizes
# of XSAVES and of the state of PKU that the kernel finds wrong, and then does without AVX; and a
# kernel that no BIOS allowed fast strings moves memory wrongly where it sees FSRM. The self-tests of
# the cryptography and the counter-measures to speculation would only take time.
KERNEL_LINE = ("console=ttyS0,115200 loglevel=1 acpi=off nosmp nokaslr mitigations=off"
               " cryptomgr.notests clearcpuid=pku,xsavec,xsaves,fsrm")

INIT = f"""\
#!{BUSYBOX} sh
{BUSYBOX} mount -t proc proc /proc
{BUSYBOX} stty -F /dev/ttyS0 raw
exec >/dev/ttyS0 2>/dev/null </dev/null
export PATH=/usr/bin:/bin HOME=/ CK_TAP_LOG_FILE_NAME=/said/tap {LIBRARY_SETTING}
show() {{
    [ ! -s "$2" ] || {BUSYBOX} sed "s/^/@$1 /" "$2"
}}
for command in /commands/*; do
    echo "{MARK}run"
    {BUSYBOX} sh "$command" >/said/out 2>/said/err
    echo "{MARK}exit $? $({BUSYBOX} cut -d ' ' -f 1 /proc/uptime)"
    show o /said/out
    show e /said/err
    show t /said/tap
    {BUSYBOX} rm -f /said/*
done
echo "{MARK}done"
while :; do {BUSYBOX} sleep 1000; done
"""


def quoted(word):
    return "'" + word.replace("'", "'\\''") + "'"


def script(words, environment):
    """A command for the guest's shell."""
    settings = [f"export {name}={quoted(value)}" for name, value in environment.items()]
    return "\n".join([*settings, "exec " + " ".join(map(quoted, words)), ""]).encode()


def libraries(program):
    """The files that ldd names: none for a static program or for what is none."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    named = re.findall(r"(/.*) \(0x[0-9a-f]+\)$", said.stdout, re.MULTILINE)
    return set(filter(os.path.isfile, named))


def contents_of(path):
    with open(path, "rb") as file:
        return file.read()


def files_for(commands):
    """All files of the guest, {path: contents}. Programs, their libraries, and what an argument or
    the environment names stand where they stand here."""
    named = (word for words, environment in commands for word in [*words, *environment.values()])
    paths = {BUSYBOX, *filter(os.path.isfile, named)}
    paths |= {library for path in paths for library in libraries(path)}
    files = {os.path.abspath(path): contents_of(path) for path in paths}
    for number, command in enumerate(commands):
        files[f"/commands/{number:04}"] = script(*command)
    return {**files, "/init": INIT.encode()}


def archive(entries):
    """A cpio archive as the kernel unpacks it, of (name, mode, contents, device number)."""
    image = bytearray()
    last = ("TRAILER!!!", 0, b"", (0, 0))
    for number, (name, mode, contents, device) in enumerate([*entries, last]):
        name = name.lstrip("/").encode() + b"\0"
        fields = (number + 1, mode, 0, 0, 1, 0, len(contents), 0, 0, *device, len(name), 0)
        image += b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name
        image += bytes(-len(image) % 4) + contents
        image += bytes(-len(image) % 4)
    return bytes(image)


def file_system(commands):
    files = files_for(commands)
    folders = {"/dev", "/proc", "/said", "/tmp"}
    for path in files:
        while path := path.rpartition("/")[0]:
            folders.add(path)
    devices = {"console": (5, 1), "ttyS0": (4, 64), "null": (1, 3), "zero": (1, 5),
               "urandom": (1, 9)}
    return archive([(path, 0o40755, b"", (0, 0)) for path in sorted(folders)] +
                   [("/dev/" + name, 0o20666, b"", device) for name, device in devices.items()] +
                   [(path, 0o100755, contents, (0, 0)) for path, contents in files.items()])


def padded(contents, size):
    return contents + bytes(-len(contents) % size)


def parameters(setup, initrd_size, kernel_at):
    """The kernel's "zero page"; setup is the part of it that stands in the kernel's file."""
    page = bytearray(PAGE)
    page[0x1f1:0x1f1 + len(setup)] = setup
    page[0x210] = 0xff  # loaded by none of the known loaders
    struct.pack_into("<III", page, 0x214, kernel_at, BASE + 2 * PAGE, initrd_size)
    struct.pack_into("<I", page, 0x228, BASE + PAGE)  # the command line
    usable = [(0, 0x9f000), (BASE, (MEMORY << 20) - BASE)]
    page[0x1e8] = len(usable)
    for number, (start, size) in enumerate(usable):
        struct.pack_into("<QQI", page, 0x2d0 + 20 * number, start, size, 1)
    return bytes(page)


def make(kernel, commands):
    """The disk's bytes for a kernel (a bzImage) and commands, each (words, environment)."""
    setup = kernel[0x1f1:0x202 + kernel[0x201]]
    initrd = file_system(commands)
    body = padded(initrd, PAGE)
    contents = (parameters(setup, len(initrd), BASE + 2 * PAGE + len(body)) +
                KERNEL_LINE.encode().ljust(PAGE, b"\0") + body + kernel[(setup[0] + 1) * SECTOR:])
    return padded(padded(contents, AT_ONCE), CYLINDER)
