# SPDX-License-Identifier: Apache-2.0
"""The legs of tools/test: what each builds, what it runs, and what it needs.

A leg is a function that returns a Tally. Builds are shared: the emulated legs run what the gcc
leg built, the fuzz leg what the sanitizer leg built; make() is quick when nothing changed.
"""

import dataclasses
import os
import shutil
import subprocess
import tempfile
from typing import Callable

import avx512
from build import ROOT, Build, shown
from results import Tally

RELEASE = ["--buildtype=release"]
# Lines are all of the debugging information that a report shows, and take less time to compile.
SANITIZED = ["-Doptimization=2", "-Ddebug=false", "-Db_lundef=false", "-Dbench=disabled"]
LINES = "-gline-tables-only"
# Checks of memory are calls where a function has many: a third of the time to compile the rooms.
OUTLINED = "-mllvm -asan-instrumentation-with-call-threshold=50"
WITHOUT_AVX512 = ["-Drooms=avx2,neon"]
CROSS = [f"--cross-file={ROOT}/cross/aarch64-linux-gnu.ini"]
CLANG = {"CC": "clang", "CXX": "clang++"}
GCC = {"CC": "gcc", "CXX": "g++"}


def has_avx512():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return {"avx512bw", "avx512dq", "avx512vl"} <= set(file.read().split())


gcc = Build("gcc", RELEASE, **GCC)
clang = Build("clang", RELEASE, **CLANG)
asan = Build("asan", SANITIZED + ([] if has_avx512() else WITHOUT_AVX512) + [
    "-Db_sanitize=address,undefined", "-Dfuzz=true", f"-Dc_args={LINES} {OUTLINED}"], **CLANG)
tsan = Build("tsan", SANITIZED + WITHOUT_AVX512 + [
    "-Db_sanitize=thread", f"-Dc_args={LINES}"], **CLANG)
no_sleef = Build("no-sleef", RELEASE + ["-Dsleef=disabled", "-Dbench=disabled"], **GCC)
arm = Build("aarch64", RELEASE + CROSS)

# Sanitizers lay memory out by fixed addresses: no randomisation, where it can be switched off.
FIXED = ["setarch", "-R"]
HALT = {
    "ASAN_OPTIONS": "halt_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def lacking(programs=(), files=()):
    """What this machine does not have."""
    return [name for name in programs if not shutil.which(name)] + \
        [path for path in files if not os.path.exists(path)]


BUILDING = ("meson", "ninja", "pkg-config")  # every leg builds something


@dataclasses.dataclass
class Leg:
    name: str
    what: str
    run: Callable
    programs: tuple = ()
    files: tuple = ()

    def lacks(self):
        return lacking((*BUILDING, *self.programs), self.files)


def suite(name):
    return lambda test: any(part.endswith(":" + name) for part in test["suite"])


def not_checks(test):
    return not suite("checks")(test)


def native(build, cases=None, prefix=(), patience=1, wanted=not_checks, **environment):
    """A leg that builds and runs a suite; cases is the number of random descriptions."""

    def run(leg):
        if cases:
            environment["QKV_TEST_CASES"] = str(cases)
        build.make(wanted if wanted in (starts_threads, takes_exponentials) else None)
        return build.test(leg.name, build.tests(wanted), prefix, patience, **environment)

    return run


def fixed_layout():
    """A prefix for commands, if this machine lets a program switch randomisation off."""
    tried = subprocess.run([*FIXED, "true"], check=False, stderr=subprocess.DEVNULL)
    return FIXED if tried.returncode == 0 else []


def sanitized(build, cases, wanted=not_checks):
    """Without a process for each test: copying the sanitizer's memory would take a fifth of the time,
    and what it finds ends the suite anyhow."""
    return lambda leg: native(build, cases, fixed_layout(), 6, wanted, CK_FORK="no", **HALT)(leg)


def memory(leg):
    """AddressSanitizer's leg, whose build leaves out a room that this CPU could not run."""
    tally = sanitized(asan, 4, about_memory)(leg)
    if not has_avx512():
        tally.skipped.append(("its suites", "room avx512, which this leg does not build where the CPU cannot run it"))
    return tally


def starts_threads(test):
    return test["name"].startswith(
        ("dispatch_threads", "bits ", "pool", "example threads", "cli_threads"))


def takes_exponentials(test):
    """What is another code without SLEEF: softmax, the tanh of a soft-cap, and what has them in it."""
    return not_checks(test) and test["name"].startswith(
        ("scores", "softmax ", "attention", "decode ", "bits", "semantics", "merge ", "loss ",
         "differences", "exp2 ", "float_env ", "no_syscalls", "stack ", "unseen", "fused",
         "plans", "dispatch", "cli_attend", "cli_cache", "cli_cpu", "cli_party", "example "))


def command_binds(tally, emulator, qkv, room, environment):
    """The command itself on the emulated CPU: it steps down, and its main job runs."""
    for part in (["cpu", "--json"], ["party"]):
        said = subprocess.run([*emulator.split(), qkv, *part], capture_output=True, text=True,
                              check=False, env={**os.environ, **environment})
        good = said.returncode == 0 and (part == ["party"] or f'"isa": "{room}"' in said.stdout)
        tally.check(good, f"qkv {' '.join(part)} in room {room}",
                    f"exit status {said.returncode}: {(said.stdout + said.stderr)[-300:]}")


def but_mutants(test):
    """Not the tests of the tests, which the native legs have run."""
    return not_checks(test) and not test["name"].startswith("mutants ")


def about_memory(test):
    """Without what a sanitizer that looks at memory adds nothing to."""
    return but_mutants(test) and not test["name"].startswith("float_env ")


def in_vector_room(test):
    """Not the scalar room's own tests, which another leg has run on the same code."""
    return but_mutants(test) and not test["name"].endswith(" scalar")


def but_the_longest(test):
    """Without what takes longest under qemu and is the same portable code everywhere, and without
    no_syscalls, which can refuse nothing there: the checks see what the library imports."""
    return in_vector_room(test) and not test["name"].startswith(
        ("cli_train", "cli_threads", "cli_party", "arguments", "example threads", "no_syscalls"))


def on_another_core(test):
    """What reads the CPU's features, and a sample of the kernels in all rooms: the code is the same,
    and what takes longest has run on a first core."""
    return test["name"].startswith(
        ("dispatch", "project ", "project_backward ", "attention ", "decode ", "stored ", "exp2 "))


def its_vector_room(test):
    """Of that sample, the room that the core is there for."""
    return on_another_core(test) and in_vector_room(test)


def its_scalar_room(test):
    """Of that sample, what runs on a core that has no more."""
    name = test["name"]
    return on_another_core(test) and (name.startswith("dispatch") or name.endswith(" scalar"))


def of_a_variant(test):
    """Decode in narrow arithmetic: its kernels, and the suites in which QKV_TEST_VARIANT asks for it."""
    return "QKV_TEST_VARIANT" in test["env"]


def its_room_and_variants(test):
    return its_vector_room(test) or of_a_variant(test)


def emulated(build, emulator, cases, room, wanted=but_mutants, **environment):
    """The suite, and the command itself, on a CPU that qemu plays. (A cross build starts qemu by
    itself.)"""

    def run(leg):
        build.make()
        if build is not arm:
            environment.update(QKV_RUNNER=emulator, MESON_EXE_WRAPPER=emulator)
        tally = build.test(leg.name, build.tests(wanted), patience=20,
                           QKV_TEST_CASES=str(cases), **environment)
        command_binds(tally, emulator, build.program("qkv"), room, environment)
        return tally

    return run


def about_objects(test):
    """Of the checks, those that another compiler could fail."""
    return suite("checks")(test) and not test["name"].startswith(("tools_", "house rules"))


def checks(leg):
    """tests/checks, and on what the other compilers built those that look at it."""
    tally = Tally()
    for build in (gcc, clang, arm):
        lacks = lacking(**ARM_NEEDS) if build is arm else []
        if lacks:
            tally.skipped.append((build.name, f"this machine has no {', '.join(lacks)}"))
            continue
        build.make()
        wanted = suite("checks") if build is gcc else about_objects
        tally.add(build.test(leg.name, build.tests(wanted)), build.name + ": ")
    return tally


# Each libFuzzer target and its options; a description takes about 150 bytes, and forty calls on a
# cache some 700.
FUZZ = {
    "fuzz_npy": ["-max_len=400"],
    "fuzz_attention": ["-len_control=0", "-max_len=256"],
    "fuzz_cache": ["-len_control=0", "-max_len=1000"],
}


def fuzz(leg):
    """The libFuzzer targets side by side for some seconds, each from an empty corpus."""
    asan.make()
    seconds = os.environ.get("QKV_FUZZ_SECONDS", "20")
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="qkv-fuzz.") as place:
        running = []
        for name, options in FUZZ.items():
            log = os.path.join(asan.folder, f"qkv-{name}.log")
            corpus = os.path.join(place, name)
            os.mkdir(corpus)
            command = [*fixed_layout(), asan.program(name), f"-max_total_time={seconds}", *options,
                       f"-artifact_prefix={asan.folder}/", corpus]
            with open(log, "w", encoding="utf-8") as file:
                running.append((name, log, subprocess.Popen(
                    command, stdout=file, stderr=subprocess.STDOUT, cwd=corpus,
                    env={**os.environ, **HALT})))
        for name, log, process in running:
            code = process.wait()
            tally.check(code == 0, name, f"exit status {code} ({shown(log)})")
    return tally


def consume(leg):
    """What was installed serves a program, through pkg-config and as a meson subproject."""
    gcc.make()
    script = os.path.join(ROOT, "tests", "checks", "consume.py")
    return gcc.script(leg.name, ["python3", script, ROOT, gcc.folder])


QEMU_ARM = "qemu-aarch64 -L /"
ARM_NEEDS = {
    "programs": ("aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "files": tuple(f"/usr/lib/aarch64-linux-gnu/pkgconfig/{name}.pc" for name in ("check", "sleef")),
}

LEGS = [
    Leg("gcc", "release build with gcc, the suite with 100 random cases", native(gcc, 100),
        ("gcc", "g++")),
    Leg("clang", "release build with clang, the suite with 20 random cases", native(clang, 20),
        ("clang",)),
    Leg("checks", "symbols, registers, flags, house rules, the header alone", checks,
        ("gcc", "clang", "nm", "objdump", "readelf")),
    Leg("asan", "AddressSanitizer and UndefinedBehaviourSanitizer, the suite with 4 random cases",
        memory, ("clang",)),
    Leg("tsan", "ThreadSanitizer, the suites that start threads, scalar and one room",
        sanitized(tsan, 50, starts_threads), ("clang",)),
    Leg("no-sleef", "built without SLEEF, what takes exponentials, 20 random cases",
        native(no_sleef, 20, wanted=takes_exponentials), ("gcc",)),
    Leg("nehalem", "x86-64 without AVX under qemu, a sample of scalar, 10 random cases",
        emulated(gcc, "qemu-x86_64 -cpu Nehalem", 10, "scalar", its_scalar_room),
        ("gcc", "qemu-x86_64")),
    # qemu's VMASKMOV touches the lanes that are masked out: 64 bytes before the guard pages.
    Leg("haswell", "x86-64 without AVX-512 under qemu, a sample of AVX2, 3 random cases",
        emulated(gcc, "qemu-x86_64 -cpu Haswell", 3, "avx2", its_vector_room, QKV_TEST_SLACK="64"),
        ("gcc", "qemu-x86_64")),
    Leg("avx512", "x86-64 with AVX-512 under Bochs, a sample, if this machine has no AVX-512",
        avx512.leg(gcc), ("gcc",)),
    Leg("cortex-a53", "AArch64 cross build under qemu, the NEON room, 4 random cases",
        emulated(arm, QEMU_ARM, 4, "neon", but_the_longest, QEMU_CPU="cortex-a53"), **ARM_NEEDS),
    Leg("cortex-a72", "the same on another core, a sample of both rooms, 5 random cases",
        emulated(arm, QEMU_ARM, 5, "neon", on_another_core, QEMU_CPU="cortex-a72"), **ARM_NEEDS),
    Leg("max", "the same with all that qemu knows, a sample and the variants, 5 random cases",
        emulated(arm, QEMU_ARM, 5, "neon", its_room_and_variants, QEMU_CPU="max"), **ARM_NEEDS),
    Leg("fuzz", "libFuzzer for 20 s each: .npy, fused against unfused, gradients, the cache", fuzz,
        ("clang",)),
    Leg("install", "installed, then used through pkg-config and as a subproject", consume, ("gcc",)),
]
