# SPDX-License-Identifier: Apache-2.0
"""The leg avx512: a sample of its room's suites on a CPU that Bochs plays, for machines that lack
AVX-512. Two hundred times slower than the machine, it leaves room for few of their random cases."""

import dataclasses
import os
import platform
import subprocess

import bochs
import results
from build import Failed, shown


@dataclasses.dataclass
class Sample:
    """A test of meson, its number of random cases, and tests of Check to leave out, which take
    longer than the rest of their suite and hardly more of the room."""

    name: str
    cases: int = 1
    without: str = ""


# What each of two machines runs; they take about as long. The variants that the CPU's model lacks
# end at once, and count as skipped. Bochs 2.7 rounds ties of float16 away from zero, which one test
# of "stored" finds.
MACHINES = (
    (
        Sample("attention avx512", 3, "model_shapes"),
        Sample("project avx512", 3, "stretches_are_joined_from_left_to_right"),
        Sample("mix avx512", 3),
        Sample("scores avx512", 3),
        Sample("softmax avx512", 3, "long_rows"),
        Sample("append avx512", 8, "broken_kernels_are_found,what_is_refused_writes_nothing"),
        Sample("narrow avx512 avx512vnni", 20),
        Sample("narrow avx512 avx512bf16", 20),
    ),
    (
        Sample("attention_backward avx512", 2,
               "model_shapes,lse_of_another_call,any_of_the_gradients"),
        Sample("decode avx512", 20, "empty_sequences,a_tree_of_guesses"),
        Sample("decode avx512 avx512vnni", 5, "empty_sequences,a_tree_of_guesses"),
        Sample("decode avx512 avx512bf16", 5, "empty_sequences,a_tree_of_guesses"),
        Sample("stored avx512", 20, "numbers_are_rounded_to_the_nearest"),
        Sample("project_backward avx512", 2,
               "broken_kernels_are_found,stretches_are_joined_from_left_to_right,sizes_pairwise"),
        Sample("bits avx512", 1, "project_of_many_blocks_whatever_the_caches_hold"),
        Sample("merge avx512", 5, "the_same_bits_in_any_way"),
        Sample("exp2 avx512", 20),
        Sample("dispatch_environment plain"),
        Sample("dispatch_environment without avx512bw"),
    ),
)
SECONDS = 600  # when a machine is given up


def commands_of(built, samples):
    """A command for each sample, as bochs.py takes them."""
    described = {test["name"]: test for test in built.introspect("--tests")}
    for sample in samples:
        if sample.name not in described:
            raise Failed(f"{built.name}: there is no test {sample.name}")
    return [(described[sample.name]["cmd"],
             {**described[sample.name]["env"], "QKV_TEST_CASES": str(sample.cases),
              "QKV_TEST_LEAVE_OUT": sample.without}) for sample in samples]


def read(sample, result, log):
    """The tally of one sample, as of one of meson's tests."""
    said = {0: "OK", 77: "SKIP", None: "TIMEOUT"}.get(result.status, "FAIL")
    test = {"name": sample.name, "result": said, "stdout": result.out + result.err,
            "returncode": result.status}
    return results.read_test(test, results.count_tap(result.tap.splitlines()), log)


def own_room(built):
    """Has this machine AVX-512, as the command sees it?"""
    return '"isa": "avx512"' in built.output([built.program("qkv"), "cpu", "--json"])


def skipped(why):
    return results.Tally(skipped=[("all of it", why)])


def tally_of(leg, built, machines):
    """What the machines came to; each has a log among the build's."""
    tally = results.Tally()
    for number, (samples, machine) in enumerate(zip(MACHINES, machines)):
        log = os.path.join(built.folder, f"qkv-{leg.name}-{number}.log")
        with open(log, "w", encoding="utf-8") as file:
            file.write("\n".join(machine.lines()) + "\n")
        for sample, result in zip(samples, machine.results()):
            tally.add(read(sample, result, shown(log)))
    command = machines[0].results()[-1]
    tally.check('"isa": "avx512"' in command.out, "qkv cpu in room avx512",
                f"exit status {command.status}: {(command.out + command.err)[-300:]}")
    return tally


def leg(built):
    """The leg, on what another one built."""

    def run(leg):
        if platform.machine() != "x86_64":
            return skipped("the room is built for x86-64 alone")
        built.make()
        if own_room(built):
            return skipped("this machine's own AVX-512 runs that room in the native legs")
        lacks = bochs.lacks()
        if lacks:
            return skipped(f"this machine has no {', '.join(lacks)}")
        batches = [commands_of(built, samples) for samples in MACHINES]
        batches[0].append(([built.program("qkv"), "cpu", "--json"], {}))
        try:
            machines = bochs.run(batches, seconds=SECONDS)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Failed(f"Bochs does not start: {error}") from error
        return tally_of(leg, built, machines)

    return run
