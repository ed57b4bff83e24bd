# SPDX-License-Identifier: Apache-2.0
"""Builds libqkv and the C part of the comparison, and opens it."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
BUILD = Path(os.environ.get("QKV_PEERS_BUILD", HERE / "build"))
LIBRARY = BUILD / "libnative.so"

SOURCES = [HERE / "native" / name for name in ("call_qkv.c", "by_hand.c", "peak.c")]
POOL = ROOT / "examples"
# Fast arithmetic is for the user program's softmax, and contraction for the peak; qkv itself is built
# by its own rules. Nothing is linked with -ffast-math: gcc would add code that has denormals flushed,
# for the whole process.
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-march=native", "-ffast-math", "-ffp-contract=fast", "-fPIC"]


class Attention(ctypes.Structure):
    """struct native_attention."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("q_heads", "kv_heads", "q_len", "kv_len", "dim", "causal")
    ] + [(name, ctypes.c_void_p) for name in ("q", "k", "v", "out")]
    _fields_ += [("threads", ctypes.c_int64), ("exp", ctypes.c_int64)]


class Learning(ctypes.Structure):
    """struct native_learning."""

    _fields_ = [("forward", Attention)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("lse", "d_out", "d_q", "d_k", "d_v")]


class Decode(ctypes.Structure):
    """struct native_decode."""

    _fields_ = [(name, ctypes.c_int64) for name in ("q_heads", "kv_heads", "kv_len", "dim", "dtype",
                                                "narrow")]
    _fields_ += [(name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "memory")]
    _fields_ += [("threads", ctypes.c_int64)]


class Project(ctypes.Structure):
    """struct native_project."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("tokens", "d_model", "width", "matrices", "head_dim")
    ] + [("x", ctypes.c_void_p), ("w", ctypes.c_void_p * 3), ("out", ctypes.c_void_p)]
    _fields_ += [("threads", ctypes.c_int64)]


def attention_call(shape, inputs, out, threads):
    return Attention(
        shape.q_heads, shape.kv_heads, shape.length, shape.length, shape.head_dim, shape.causal,
        *(a.ctypes.data for a in (inputs["q"], inputs["k"], inputs["v"], out)), threads, 0,
    )


def learning_call(shape, inputs, made, threads):
    """made: the arrays out, lse, d_q, d_k and d_v."""
    pointers = (made["lse"], inputs["d_out"], made["d_q"], made["d_k"], made["d_v"])
    forward = attention_call(shape, inputs, made["out"], threads)
    return Learning(forward, *(array.ctypes.data for array in pointers))


EXP_POLY5 = 2  # a qkv_exp
STORED = {"f32": 1, "f16": 3, "bf16": 4, "i8": 5}  # qkv_dtype


def decode_call(shape, inputs, out, threads, narrow=False):
    """Without the cache's memory, whose size depends on the rest."""
    return Decode(
        shape.q_heads, shape.kv_heads, shape.length, shape.head_dim, STORED[shape.stored], narrow,
        *(a.ctypes.data for a in (inputs["q"], inputs["k"], inputs["v"], out)), None, threads,
    )


def folded_call(shape, inputs, out, threads):
    """Decoding as attention without groups: the query heads of a group as rows of one head."""
    return Attention(
        shape.kv_heads, shape.kv_heads, shape.q_heads // shape.kv_heads, shape.length,
        shape.head_dim, 0, *(a.ctypes.data for a in (inputs["q"], inputs["k"], inputs["v"], out)),
        threads, 0,
    )


def project_call(shape, inputs, out, threads):
    w = [matrix.ctypes.data for matrix in inputs["w"]]
    return Project(
        shape.tokens, shape.d_model, shape.width, shape.matrices, shape.head_dim,
        inputs["x"].ctypes.data, (ctypes.c_void_p * 3)(*w), out.ctypes.data, threads,
    )


def check_source(library):
    """A folder that was built from another checkout would measure that one."""
    info = json.loads((library / "meson-info" / "meson-info.json").read_text())
    source = Path(info["directories"]["source"]).resolve()
    if source != ROOT:
        sys.exit(f"{library} is a build of {source}, not of {ROOT}: set QKV_PEERS_BUILD")


def build():
    """libqkv as a release, then the C part against it."""
    library = BUILD / "qkv"
    if not (library / "build.ninja").exists():
        options = ["-Dtests=false", "-Dcli=false", "-Dexamples=false", "-Dbench=disabled"]
        command = ["meson", "setup", *options, str(library), str(ROOT)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    check_source(library)
    subprocess.run(["ninja", "--quiet", "-C", str(library)], check=True)
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    where = ["-I", str(ROOT / "include"), "-I", str(POOL), "-L", str(library / "src")]
    libraries = [f"-Wl,-rpath,{library / 'src'}", "-lqkv", "-pthread", "-lm"]
    objects = []
    for source in (*SOURCES, POOL / "pool.c"):
        objects.append(str(BUILD / source.with_suffix(".o").name))
        subprocess.run([compiler, *FLAGS, *where, "-c", str(source), "-o", objects[-1]], check=True)
    subprocess.run([compiler, "-shared", *objects, "-o", str(LIBRARY), *where, *libraries], check=True)


def open_library():
    native = ctypes.CDLL(str(LIBRARY))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    signatures = {
        "native_peak": (ctypes.c_double, [ctypes.c_int]),
        "native_vector_bytes": (ctypes.c_int, []),
        "native_nothing": (None, [pointer]),
        "native_qkv_attention": (pointer, [ctypes.POINTER(Attention), text]),
        "native_qkv_learning": (pointer, [ctypes.POINTER(Learning), text]),
        "native_qkv_cache_size": (ctypes.c_size_t, [ctypes.POINTER(Decode)]),
        "native_qkv_decode": (pointer, [ctypes.POINTER(Decode), text]),
        "native_qkv_attend": (pointer, [ctypes.POINTER(Decode), text]),
        "native_qkv_project": (pointer, [ctypes.POINTER(Project), text]),
        "native_qkv_run": (ctypes.c_int, [pointer]),
        "native_qkv_room": (text, [text]),
        "native_qkv_narrow": (text, [ctypes.c_int64]),
        "native_by_hand": (pointer, [ctypes.POINTER(Attention), pointer, ctypes.c_int]),
        "native_by_hand_run": (ctypes.c_int, [pointer]),
        "qkv_version": (text, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(native, name)
        function.restype, function.argtypes = result, arguments
    return native


def bound(function, argument):
    """A call of one pointer argument that costs as little as ctypes can."""
    value = ctypes.c_void_p(argument)
    return lambda: function(value)
