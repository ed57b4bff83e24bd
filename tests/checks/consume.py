#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Uses the library as its users will: consume.py SOURCE BUILD.

Installs BUILD into a folder of its own, looks whether everything is there, builds a small
program against it through pkg-config (shared and static), and once more with SOURCE as a
subproject of another meson project. Prints `ok NAME` or `not ok NAME: why` for each.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile

PROGRAM = r"""/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <qkv/qkv.h>

static _Alignas(QKV_ALIGNMENT) unsigned char memory[1 << 20];

int main(void)
{
    float q[4] = {1, 0, 0, 1}, k[4] = {1, 0, 0, 1}, v[4] = {1, 2, 3, 4}, o[4] = {0};
    qkv_attention_params params;
    qkv_attention_params_init(&params);
    params.batch = params.q_heads = params.kv_heads = 1;
    params.q_len = params.kv_len = params.head_dim = 2;
    qkv_tensors tensors;
    qkv_tensors_init(&tensors);
    tensors.q = qkv_tensor_bhsd(q, 1, 2, 2);
    tensors.k = qkv_tensor_bhsd(k, 1, 2, 2);
    tensors.v = qkv_tensor_bhsd(v, 1, 2, 2);
    tensors.out = qkv_tensor_bhsd(o, 1, 2, 2);
    qkv_exec exec;
    qkv_exec_init(&exec);
    exec.workspace = memory;
    exec.workspace_size = sizeof(memory);
    qkv_status status = qkv_attention(&params, &tensors, &exec);
    if (status != QKV_OK) {
        printf("%s\n", qkv_status_string(status));
        return 1;
    }
    double e = exp(1 / sqrt(2.0)), want = (e * 1 + 3) / (e + 1);
    printf("qkv %s: %g, expected %g\n", qkv_version(), (double)o[0], want);
    return fabs((double)o[0] - want) > 1e-5 || strcmp(qkv_version(), QKV_VERSION_STRING) != 0;
}
"""

PROJECT = """project('guest', 'c', default_options: ['c_std=c11', 'warning_level=3'])
math = meson.get_compiler('c').find_library('m')
executable('guest', 'guest.c', dependencies: [dependency('qkv', fallback: 'qkv'), math])
executable('guest_static', 'guest.c', dependencies: [dependency('qkv', static: true), math])
"""

INSTALLED = ("include/qkv/qkv.h", "include/qkv/cache.h", "include/qkv/version.h",
             "lib*/**/libqkv.so", "lib*/**/libqkv.so.0", "lib*/**/libqkv.a", "lib*/**/pkgconfig/qkv.pc", "bin/qkv")
EXAMPLES = "share/doc/qkv/examples"


class Broken(Exception):
    pass


def run(*command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**os.environ, **environment})
    if done.returncode:
        raise Broken(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def find(prefix, pattern):
    found = glob.glob(os.path.join(prefix, pattern), recursive=True)
    if not found:
        raise Broken(f"{pattern} is not installed")
    return found[0]


def installation(place, build):
    """Everything is where it belongs, and nothing points back into the build folder."""
    run("meson", "install", "-C", build, "--no-rebuild", "--destdir", place)
    prefix = os.path.join(place, "usr", "local")
    for pattern in INSTALLED:
        find(prefix, pattern)
    for path in (find(prefix, "lib*/**/libqkv.so"), find(prefix, "bin/qkv")):
        if build in run("readelf", "-dW", path):
            raise Broken(f"{path} looks for libraries in the build folder")
    return prefix


def check_linked(program, static):
    if ("libqkv" in run("readelf", "-dW", program)) == static:
        raise Broken(f"{program} is linked in the wrong way")


def compiled(prefix, program, static, *sources):
    """A program, built with what pkg-config says about the installed library, and run."""
    packages = os.path.dirname(find(prefix, "lib*/**/pkgconfig/qkv.pc"))
    libraries = os.path.dirname(find(prefix, "lib*/**/libqkv.so"))
    asked = ["pkg-config", f"--define-variable=prefix={prefix}", "--cflags", "--libs"]
    asked += ["--static", "qkv"] if static else ["qkv"]
    flags = run(*asked, PKG_CONFIG_PATH=packages).split()
    if static:
        flags = ["-l:libqkv.a" if flag == "-lqkv" else flag for flag in flags]
    run("cc", "-std=c11", "-Wall", "-Werror", "-pthread", *sources, "-o", program, *flags, "-lm")
    check_linked(program, static)
    run(program, LD_LIBRARY_PATH=libraries)


def linked(prefix, place, static):
    program = os.path.join(place, "static" if static else "shared")
    compiled(prefix, program, static, os.path.join(place, "guest.c"))


def copied_examples(prefix, place):
    """The examples that were installed, the pool among them, with nothing else of the sources."""
    for program, sources in {"embed": ["embed.c"], "threads": ["threads.c", "pool.c"],
                             "train_step": ["train_step.c"],
                             "decode_loop": ["decode_loop.c", "pool.c"]}.items():
        files = [find(prefix, os.path.join(EXAMPLES, name)) for name in sources]
        compiled(prefix, os.path.join(place, program), False, *files)


def installed_command(prefix):
    libraries = os.path.dirname(find(prefix, "lib*/**/libqkv.so"))
    for part in ("cpu", "party"):
        run(os.path.join(prefix, "bin", "qkv"), part, LD_LIBRARY_PATH=libraries)


def subproject(place, source):
    """The same program in a project that has the library among its subprojects, and no program of it."""
    os.makedirs(os.path.join(place, "subprojects"))
    os.symlink(source, os.path.join(place, "subprojects", "qkv"))
    with open(os.path.join(place, "meson.build"), "w", encoding="utf-8") as file:
        file.write(PROJECT)
    build = os.path.join(place, "build")
    run("meson", "setup", "-Dqkv:rooms=avx2,neon", build, place)
    run("ninja", "-C", build)
    for program, static in (("guest", False), ("guest_static", True)):
        check_linked(os.path.join(build, program), static)
        run(os.path.join(build, program))
    programs = [target["name"] for target in json.loads(run("meson", "introspect", "--targets", build))
                if target["type"] == "executable" and target["subproject"]]
    if programs:
        raise Broken(f"the subproject builds {', '.join(programs)}, too")


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: consume.py SOURCE BUILD")
    source, build = map(os.path.abspath, sys.argv[1:])
    failed = 0
    with tempfile.TemporaryDirectory(prefix="qkv-consume.") as place:
        with open(os.path.join(place, "guest.c"), "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        prefix = os.path.join(place, "usr", "local")
        for name, step in (
                ("installation", lambda: installation(place, build)),
                ("the installed command", lambda: installed_command(prefix)),
                ("shared through pkg-config", lambda: linked(prefix, place, False)),
                ("static through pkg-config", lambda: linked(prefix, place, True)),
                ("copied examples", lambda: copied_examples(prefix, place)),
                ("subproject", lambda: subproject(place, source))):
            try:
                step()
                print(f"ok {name}", flush=True)
            except Broken as why:
                print(f"not ok {name}: {str(why).splitlines()[0]}\n{why}", flush=True)
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
