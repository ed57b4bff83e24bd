#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the compiler and the linker made of the library, checked against its promises.

objects.py CHECK FILE...; tests/checks/meson.build registers each check. Exit status 0 if the
promise is kept, 1 with a line for each breach. The tools come from $NM, $OBJDUMP and $READELF.
"""

import json
import os
import re
import subprocess
import sys

# Beyond x86-64's baseline although in no VEX encoding: SSE3 to SSE4.2, POPCNT, BMI, MOVBE.
BEYOND_SSE2 = re.compile(
    r"^(haddp[sd]|hsubp[sd]|addsubp[sd]|movs[hl]dup|movddup|lddqu|pshufb|ph(add|sub)\w+|pabs[bwd]"
    r"|psign[bwd]|palignr|pmulhrsw|pmaddubsw|blendv?p[sd]|pblend\w+|round[sp][sd]|dpp[sd]|insertps"
    r"|extractps|p(insr|extr)[bdq]|pmulld|pmuldq|pm(ax|in)(s[bd]|u[wd])|pmov[sz]x\w+|ptest"
    r"|pcmpeqq|pcmpgtq|packusdw|pcmp[ei]str[im]|movntdqa|mpsadbw|phminposuw|crc32[bwlq]?"
    r"|popcnt[wlq]?|lzcnt[wlq]?|andn[lq]?|s[ha][lr]x[lq]?|bzhi|pdep|pext|mulx|bextr|movbe\w*)$")
VEX = re.compile(r"^v(?!er[rw]$|m(call|clear|func|launch|mcall|ptr|read|resume|run|write|x)\w*$)\w+$")
FUSED_ARM = re.compile(r"^(fn?madd|fn?msub|fml[as]l?2?)$")
EVEX_REGISTER = re.compile(r"%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]\b|%zmm")

# All that the library may ask of others: SLEEF by its suffixed names, bytes, the environment and
# the CPU when it is loaded, and libm where the build has no SLEEF.
IMPORTS = re.compile(
    r"^(Sleef_\w+_u\d+(purec|avx2|avx512f|advsimd)|mem(cpy|move|set|cmp|chr)|bcmp"
    r"|str(len|cmp|ncmp|chr|cspn|spn)|(secure_)?getenv|(__)?getauxval|__stack_chk_(fail|guard)"
    r"|cos|nextafterf|pow|sin|sincos|__cxa_finalize|__gmon_start__|_ITM_\w+)$")


def output(tool, *arguments):
    command = [*os.environ.get(tool.upper(), tool).split(), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(path, *options):
    """(name, kind) of each symbol."""
    for line in output("nm", *options, path).splitlines():
        words = line.split()
        if len(words) >= 2 and len(words[-2]) == 1:
            yield words[-1].split("@")[0], words[-2]


def instructions(path):
    """(function, mnemonic, operands) of each instruction of an archive."""
    function = ""
    for line in output("objdump", "-d", "--no-show-raw-insn", path).splitlines():
        label = re.match(r"^[0-9a-f]+ <(.+)>:$", line)
        if label:
            function = label.group(1)
        place, _, text = line.partition(":\t")
        if re.fullmatch(r"\s*[0-9a-f]+", place):
            words = text.split(None, 1)
            while words and words[0] in ("rep", "repz", "repnz", "lock", "data16", "notrack", "bnd"):
                words = words[1].split(None, 1) if len(words) > 1 else []
            if words:
                yield function, words[0], words[1] if len(words) > 1 else ""


def exports(library, *headers):
    """The library exports what the headers declare, and nothing else."""
    declared = set()
    for header in headers:
        with open(header, encoding="utf-8") as file:
            declared |= set(re.findall(r"^QKV_API\s[^;]*?\b(qkv_\w+)\(", file.read(), re.MULTILINE))
    exported = {name for name, _ in symbols(library, "-D", "--defined-only")}
    if not declared:
        yield "the headers declare nothing"
    for name in sorted(exported - declared):
        yield f"exports {name}, which no header declares"
    for name in sorted(declared - exported):
        yield f"does not export {name}"


def imports(library):
    """Nothing that allocates, locks, prints, starts threads or aborts."""
    for name, _ in symbols(library, "-D", "--undefined-only"):
        if not IMPORTS.match(name):
            yield f"needs {name}"


def names(archive, prefix):
    """Global names carry their prefix, and none is a copy that the linker may drop."""
    found = 0
    for name, kind in symbols(archive, "-g", "--defined-only"):
        found += 1
        if not name.startswith(prefix):
            yield f"{name} does not begin with {prefix}"
        if kind in "WVu":
            yield f"{name} is weak: another room's copy could replace it"
    if not found:
        yield "no symbols"


def disassembled(archive, forbidden, needed=None):
    """Each instruction that is forbidden(mnemonic, operands); one at least must be needed()."""
    seen = lacking = False
    for function, mnemonic, operands in instructions(archive):
        seen = True
        lacking = lacking or (needed is not None and needed(mnemonic, operands))
        if forbidden(mnemonic, operands):
            yield f"{function}: {mnemonic} {operands}"
    if not seen:
        yield "no instructions"
    if needed is not None and not lacking:
        yield "not one of the instructions that it is there for"


def portable_x86_64(archive):
    """Runs on the oldest x86-64."""
    return disassembled(archive, lambda mnemonic, operands: VEX.match(mnemonic)
                        or BEYOND_SSE2.match(mnemonic) or re.search(r"%[yz]mm|%k[0-7]\b", operands))


def portable_aarch64(archive):
    """No multiplication and addition that the source did not fuse."""
    return disassembled(archive, lambda mnemonic, operands: FUSED_ARM.match(mnemonic))


def room_avx2(archive):
    """Nothing of AVX-512; YMM registers and fused multiply-adds in use."""
    return disassembled(archive, lambda mnemonic, operands: EVEX_REGISTER.search(operands),
                        lambda mnemonic, operands: mnemonic.startswith("vfm") and "%ymm" in operands)


def room_avx512(archive):
    """ZMM registers and fused multiply-adds in use."""
    return disassembled(archive, lambda mnemonic, operands: False,
                        lambda mnemonic, operands: mnemonic.startswith("vfm") and "%zmm" in operands)


def room_neon(archive):
    """Vector fused multiply-adds in use."""
    return disassembled(archive, lambda mnemonic, operands: re.search(r"\bz\d+\.", operands),
                        lambda mnemonic, operands: mnemonic == "fmla" and ".4s" in operands)


# What each feature multiplies with, as an instruction and what its operands hold.
MULTIPLIES = {"avxvnni": ("vpdpbusd", "%ymm"), "avx512vnni": ("vpdpbusd", "%zmm"),
              "avx512bf16": ("vdpbf16ps", "%zmm"), "fp16": ("fmla", ".8h"),
              "dotprod": ("sdot", ".16b"), "i8mm": ("smmla", ".16b"), "bf16": ("bfmmla", ".8h")}


def variant(archive, feature):
    """A variant's own multiplication in use, and without AVX-512 nothing of it."""
    forbidden = EVEX_REGISTER if feature == "avxvnni" else None
    multiplies, width = MULTIPLIES[feature]
    return disassembled(
        archive, lambda mnemonic, operands: forbidden and forbidden.search(operands),
        lambda mnemonic, operands: width in operands
        and multiplies in (mnemonic, *operands.split()[:1]))  # {vex} may come first


def linking(library):
    """Bound when loaded, so that no first call enters the dynamic linker."""
    dynamic = output("readelf", "-dW", library)
    if not re.search(r"BIND_NOW|Flags:.*\bNOW\b", dynamic):
        yield "is bound lazily"
    if "TEXTREL" in dynamic:
        yield "has relocations in its code"
    if not re.search(r"SONAME.*\[libqkv\.so\.\d+\]", dynamic):
        yield "has no soname with a version"
    for needed in re.findall(r"NEEDED.*\[(.*)\]", dynamic):
        if not re.match(r"(libc|libm|libsleef|ld-linux-\S+)\.so\b", needed):
            yield f"needs {needed}"
    segments = output("readelf", "-lW", library)
    if "GNU_RELRO" not in segments or re.search(r"GNU_STACK.*RWE", segments):
        yield "leaves its tables writable or its stack executable"


def flags(database, source):
    """Every file of the library was compiled by the house's rules."""
    with open(database, encoding="utf-8") as file:
        commands = json.load(file)
    inside = os.path.join(os.path.realpath(source), "src") + os.sep
    found = 0
    for entry in commands:
        path = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
        if not path.startswith(inside):
            continue
        found += 1
        given = set(entry["command"].split())
        for flag in sorted({"-ffp-contract=off", "-fvisibility=hidden", "-fno-plt"} - given):
            yield f"{path} without {flag}"
        for flag in sorted({"-ffast-math", "-Ofast", "-funsafe-math-optimizations",
                            "-march=native", "-mcpu=native"} & given):
            yield f"{path} with {flag}"
        arithmetic = not path.endswith("/init.c")  # which fills the table, and runs on every CPU
        if "/scalar/" in path and arithmetic and not {"-fno-tree-vectorize", "-fno-vectorize"} & given:
            yield f"{path} with the vectorizer on"
    if not found:
        yield "no file of the library"


CHECKS = {function.__name__: function for function in (
    exports, imports, names, portable_x86_64, portable_aarch64, room_avx2, room_avx512, room_neon,
    variant, linking, flags)}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in CHECKS:
        sys.exit(f"usage: objects.py {'|'.join(CHECKS)} FILE...")
    check = CHECKS[sys.argv[1]]
    breaches = list(check(*sys.argv[2:]))
    for breach in breaches[:50]:
        print(breach)
    print(f"{check.__doc__} Breaches in {sys.argv[2]}: {len(breaches)}.")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
