#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The house rules that a search can see: house.py ROOT checks a source tree.

What the rules are for stands in docs/design.md. Each rule is a function that yields what
breaks it; house_test.py breaks every one of them on purpose.
"""

import os
import re
import sys

CODE = (".c", ".h", ".cc", ".def", ".inc")
SOURCE = CODE + (".py", ".sh", ".ini", ".build")
FOLDERS = ("include", "src", "cli", "bench", "examples", "tests", "tools", "cross", ".ci")
LONGEST = 450  # "about 400 lines"

INTRINSIC = re.compile(
    r"\b(_mm\d*_\w+|__m(64|128|256|512)[id]?\b|__builtin_(ia32|neon|aarch64)_\w+"
    r"|v(?!f_)\w+q?_[fsup](8|16|32|64)\b|(float|int|uint)(8|16|32|64)x\d+_t)"
    r"|<\w*(mmintrin|immintrin|x86intrin|arm_neon|arm_sve)\.h>|\basm\b|__asm")
ISA_MACRO = re.compile(
    r"__(AVX\w*|SSE\w*|FMA|F16C|ARM_\w+|aarch64|x86_64|i386|amd64)(__)?\b"
    r"|\bQKV_(X86_64|AARCH64|ROOM_\w+)\b")
CONDITION = re.compile(r"^\s*#\s*(el)?if")
DEFINITION = re.compile(r"^(?!static inline\b|typedef\b|struct\b|#|\s|/|\*|\}|\{)\w[^;=]*\([^;]*$")
ARRAY = re.compile(r"\bv[fm]\s+\w+\s*\[")
STRUCT = re.compile(r"\b(?:struct|union)\s*\w*\s*\{[^}]*\bv[fm]\s+\w+")
LEFTOVER = re.compile(r"^\s*#\s*if\s+0\b|\b(TODO|FIXME|XXX|HACK)\b")


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def code(root, path):
    """A file's text with its comments emptied: a rule is about code."""
    return re.sub(r"/\*.*?\*/", lambda found: "\n" * found.group().count("\n"),
                  read(root, path), flags=re.DOTALL)


def lines_of(root, path):
    return enumerate(code(root, path).splitlines(), 1)


def files_under(root, *folders):
    """Every file of these folders of the project, as paths from its root."""
    for folder in folders:
        for place, inner, names in os.walk(os.path.join(root, folder)):
            inner[:] = sorted(name for name in inner if not name.startswith(("build", "__pycache__", ".venv")))
            for name in sorted(names):
                yield os.path.relpath(os.path.join(place, name), root)


def is_source(root, path):
    if path.endswith(SOURCE):
        return True
    with open(os.path.join(root, path), "rb") as file:
        return file.read(2) == b"#!"


def sources(root):
    return [path for path in files_under(root, *FOLDERS) if is_source(root, path)]


def rooms(root):
    """The folders that isa.def names."""
    found = re.findall(r"^ROOM\((\w+),", read(root, "src/core/isa.def"), re.MULTILINE)
    return [room for room in found if os.path.isdir(os.path.join(root, "src", room))]


def rule_licence(root):
    """Every source file says its licence in its first lines."""
    for path in sources(root):
        if path.endswith(".build"):
            continue
        head = read(root, path).splitlines()[:3]
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in head):
            yield path, 1, "no SPDX line"


def rule_said(root):
    """Every C file says what it is: a comment after the SPDX line."""
    for path in sources(root):
        if path.endswith(CODE) and not re.match(r"/[/*][^\n]*\n\s*/[/*]", read(root, path)):
            yield path, 2, "no paragraph that says what the file is"


def portable(root):
    """What every instruction set shares: the templates, and the core but for cpu*.c."""
    for path in files_under(root, "src/tmpl", "src/core"):
        if path.endswith(CODE) and not re.match(r"src/core/cpu\w*\.[ch]$", path):
            yield path


def rule_intrinsics(root):
    """No intrinsics in portable code."""
    for path in portable(root):
        for number, line in lines_of(root, path):
            if INTRINSIC.search(line):
                yield path, number, "an intrinsic in portable code"


def rule_conditions(root):
    """No choice by instruction set in portable code; config.h may insist on being told."""
    for path in portable(root):
        for number, line in lines_of(root, path):
            if CONDITION.match(line) and ISA_MACRO.search(line) and path != "src/core/config.h":
                yield path, number, "a condition on the instruction set in portable code"


def rule_guard(root):
    """Each vec.h refuses to compile in a way that is not its room's."""
    for room in rooms(root):
        path = f"src/{room}/vec.h"
        if not os.path.exists(os.path.join(root, path)):
            yield path, 1, "is missing"
        elif not re.search(r"^#\s*error\b", read(root, path), re.MULTILINE):
            yield path, 1, "no #error for a compile without the room's flags"


def rule_inline(root):
    """Helpers in the rooms' headers are static inline, so that no copy leaves its room."""
    for room in rooms(root):
        for path in files_under(root, f"src/{room}"):
            if not path.endswith(".h"):
                continue
            previous = ""
            for number, line in lines_of(root, path):
                if DEFINITION.match(line) and not previous.startswith("static inline") \
                        and not previous.endswith("\\"):
                    yield path, number, "a function that is not static inline"
                previous = line.rstrip()


def rule_furniture(root):
    """The rooms hold the same files, but for narrow arithmetic, which is by single features."""
    every = {room: {name for path in files_under(root, f"src/{room}")
                    if not (name := os.path.relpath(path, f"src/{room}")).startswith("narrow_")}
             for room in rooms(root)}
    union = set().union(*every.values())
    for room, names in every.items():
        for name in sorted(union - names):
            yield f"src/{room}/{name}", 1, "is missing: another room has it"


def rule_sizeless(root):
    """Vectors are plain variables in the templates, never in arrays or structs."""
    for path in files_under(root, "src/tmpl"):
        text = code(root, path)
        for found in [*ARRAY.finditer(text), *STRUCT.finditer(text)]:
            yield path, text.count("\n", 0, found.end()) + 1, "a vector in an array or a struct"


def rule_leftovers(root):
    """Nothing switched off, nothing put off."""
    for path in sources(root):
        if path.startswith("tests/checks/house"):
            continue
        for number, line in enumerate(read(root, path).splitlines(), 1):
            if LEFTOVER.search(line):
                yield path, number, "switched off or put off"


def rule_length(root):
    """A file that one can read in one go."""
    for path in sources(root):
        count = read(root, path).count("\n")
        if count > LONGEST and path != "include/qkv/qkv.h":
            yield path, count, f"longer than {LONGEST} lines"


RULES = [value for name, value in sorted(globals().items()) if name.startswith("rule_")]


def broken(root):
    for rule in RULES:
        for path, line, why in rule(root):
            yield rule.__name__, f"{path}:{line}: {why}"


def main():
    if len(sys.argv) != 2 or not os.path.isfile(os.path.join(sys.argv[1], "src/core/isa.def")):
        sys.exit("usage: house.py ROOT")
    found = list(broken(sys.argv[1]))
    for rule, text in found:
        print(f"{rule}: {text}")
    print(f"{len(RULES)} rules over {len(sources(sys.argv[1]))} files, {len(found)} broken")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
