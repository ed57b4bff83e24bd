#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks every promise that objects.py checks, one at a time, and expects it to say so.

objects_test.py COMPILER... compiles a few lines of C in sound and in broken ways.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile

import objects

PLAIN = "int qkv_f(int x) { return x + 1; }\n"
HEADER = "#define QKV_API\nQKV_API int qkv_f(int x);\n"
MALLOC = "#include <stdlib.h>\nvoid *qkv_f(int x) { return malloc((size_t)x); }\n"
FMA = ("void qkv_f(float *a, const float *b) {\n"
       "    for (int i = 0; i < 4096; i++) a[i] = __builtin_fmaf(b[i], b[i], a[i]);\n}\n")
ROUND = "#include <smmintrin.h>\n__m128 qkv_f(__m128 x) { return _mm_floor_ps(x); }\n"
SHARED = ["-shared", "-fPIC", "-Wl,-z,relro"]
SONAME = "-Wl,-soname,libqkv.so.0"
WIDE = ["-O3", "-mavx2", "-mfma", "-c"]
WIDER = ["-O3", "-mavx512f", "-mprefer-vector-width=512", "-c"]
DOTS = ("#include <immintrin.h>\n__m256i qkv_f(__m256i x, __m256i y, __m256i z) {\n"
        "    return _mm256_dpbusd_avx_epi32(x, y, z);\n}\n")
WIDE_DOTS = ("#include <immintrin.h>\n__m512i qkv_f(__m512i x, __m512i y, __m512i z) {\n"
             "    return _mm512_dpbusd_epi32(x, y, z);\n}\n")
HALVES = ("#include <arm_neon.h>\nfloat16x8_t qkv_f(float16x8_t x, float16x8_t y) {\n"
          "    return vfmaq_f16(x, y, y);\n}\n")

# check, source, flags, further arguments, whether it keeps the promise
OBJECTS = [
    ("exports", PLAIN, SHARED, ["HEADER"], True),
    ("exports", PLAIN + "int qkv_g(void) { return 0; }\n", SHARED, ["HEADER"], False),
    ("exports", "int qkv_g(void) { return 0; }\n", SHARED, ["HEADER"], False),
    ("imports", PLAIN, SHARED, [], True),
    ("imports", MALLOC, SHARED, [], False),
    ("names", PLAIN, ["-c"], ["qkv_"], True),
    ("names", PLAIN, ["-c"], ["qkv_avx2_"], False),
    ("names", "__attribute__((weak)) " + PLAIN, ["-c"], ["qkv_"], False),
    ("names", "static " + PLAIN, ["-c"], ["qkv_"], False),
    ("linking", PLAIN, SHARED + [SONAME, "-Wl,-z,now"], [], True),
    ("linking", PLAIN, SHARED + [SONAME, "-Wl,-z,lazy"], [], False),
    ("linking", PLAIN, SHARED + ["-Wl,-z,now"], [], False),
    ("linking", PLAIN, SHARED + [SONAME, "-Wl,-z,now", "-Wl,-z,execstack"], [], False),
]
OBJECTS_X86_64 = [
    ("portable_x86_64", PLAIN, ["-O3", "-c"], [], True),
    ("portable_x86_64", FMA, WIDE, [], False),
    ("portable_x86_64", ROUND, ["-O3", "-msse4.1", "-c"], [], False),
    ("portable_x86_64", FMA, ["-O0", "-mavx", "-c"], [], False),
    ("room_avx2", FMA, WIDE, [], True),
    ("room_avx2", FMA, WIDER, [], False),
    ("room_avx2", PLAIN, WIDE, [], False),
    ("room_avx512", FMA, WIDER, [], True),
    ("room_avx512", FMA, WIDE, [], False),
    ("variant", DOTS, ["-O2", "-mavxvnni", "-c"], ["avxvnni"], True),
    ("variant", DOTS + WIDE_DOTS.replace("qkv_f", "qkv_g"), ["-O2", "-mavxvnni", "-mavx512vnni", "-c"],
     ["avxvnni"], False),
    ("variant", FMA, WIDE, ["avxvnni"], False),
    ("variant", WIDE_DOTS, ["-O2", "-mavx512vnni", "-c"], ["avx512vnni"], True),
    ("variant", FMA, WIDER, ["avx512vnni"], False),
]
OBJECTS_AARCH64 = [
    ("portable_aarch64", PLAIN, ["-O3", "-c"], [], True),
    ("portable_aarch64", FMA, ["-O3", "-c"], [], False),
    ("room_neon", FMA, ["-O3", "-c"], [], True),
    ("room_neon", PLAIN, ["-O3", "-c"], [], False),
    ("variant", HALVES, ["-O2", "-march=armv8.2-a+fp16", "-c"], ["fp16"], True),
    ("variant", FMA, ["-O3", "-c"], ["fp16"], False),
]

RULES = "-ffp-contract=off -fvisibility=hidden -fno-plt"
# file, flags, whether it keeps the promise
COMMANDS = [
    ("src/core/plan.c", RULES, True),
    ("src/core/plan.c", "-ffp-contract=off -fno-plt", False),
    ("src/core/plan.c", RULES + " -ffast-math", False),
    ("src/core/plan.c", RULES + " -march=native", False),
    ("src/scalar/mix.c", RULES + " -fno-tree-vectorize", True),
    ("src/scalar/mix.c", RULES, False),
    ("bench/bench.c", "", False),
]


def compiled(compiler, place, source, flags):
    """The path of a small object."""
    made = os.path.join(place, "object.c")
    with open(made, "w", encoding="utf-8") as file:
        file.write(source)
    result = os.path.join(place, "object")
    subprocess.run([*compiler, *flags, made, "-o", result], check=True)
    return result


def database(place, path, flags):
    result = os.path.join(place, "compile_commands.json")
    with open(result, "w", encoding="utf-8") as file:
        json.dump([{"directory": place, "file": path, "command": f"cc {flags} -c {path}"}], file)
    return result


def trials(compiler, place):
    """(what is tried, whether it is sound, the breaches that objects.py found)."""
    header = os.path.join(place, "qkv.h")
    with open(header, "w", encoding="utf-8") as file:
        file.write(HEADER)
    here = {"x86_64": OBJECTS_X86_64, "aarch64": OBJECTS_AARCH64}[platform.machine()]
    for check, source, flags, further, sound in OBJECTS + here:
        made = compiled(compiler, place, source, flags)
        arguments = [header if argument == "HEADER" else argument for argument in further]
        yield (f"{check} of {source!r} with {' '.join(flags)}", sound,
               list(objects.CHECKS[check](made, *arguments)))
    for path, flags, sound in COMMANDS:
        yield (f"flags of {path}: {flags}", sound,
               list(objects.flags(database(place, path, flags), place)))


def main():
    compiler = sys.argv[1:] or ["cc"]
    tried = wrong = 0
    with tempfile.TemporaryDirectory() as place:
        for what, sound, breaches in trials(compiler, place):
            tried += 1
            if sound == bool(breaches):
                wrong += 1
                print(f"{what}: {breaches or 'found sound'}")
    print(f"{tried} objects tried, {wrong} judged wrongly")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
