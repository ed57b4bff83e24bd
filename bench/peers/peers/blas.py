# SPDX-License-Identifier: Apache-2.0
"""Everyone's sgemm: as a projection, and under a plain user program as attention.

A projection multiplies by the three matrices side by side, in one call; where a library packs a
matrix ahead of time, it is measured both ways. The user program (native/by_hand.c) runs sgemm
serially and spreads blocks over threads itself.
"""

import ctypes
import glob
import importlib.util
import os
import sys
from dataclasses import dataclass

import numpy as np

from harness import memory, native
from harness.peer import Call, Peer, Unsupported

ROW_MAJOR, PLAIN, PACKED, MATRIX_B = 101, 111, 151, 162
CBLAS, DNNL = 0, 1


def within(package, pattern):
    """A file that an installed package brought along."""
    found = importlib.util.find_spec(package)
    if found is None:
        raise ImportError(f"the package {package} is not installed")
    return first(os.path.join(os.path.dirname(found.origin), pattern))


def first(pattern):
    files = sorted(glob.glob(pattern))
    if not files:
        raise ImportError(f"there is no {os.path.basename(pattern)}")
    return files[0]


@dataclass
class Library:
    """Where a BLAS is and how it is called."""

    name: str
    path: object  # a function that returns the file
    prefix: str = ""
    kind: int = CBLAS
    packs: bool = False
    serial: tuple = ()  # environment variables of the user program

    def open(self):
        return ctypes.CDLL(self.path(), mode=ctypes.RTLD_GLOBAL)

    def beside(self):
        """Lets the library find what it depends on in its own folder."""
        try:
            return {"LD_LIBRARY_PATH": os.path.dirname(self.path())}
        except ImportError:
            return {}


def mkl_path():
    return first(os.path.join(sys.prefix, "lib", "libmkl_rt.so.*"))


def dnnl_path():
    return os.environ.get("QKV_PEERS_DNNL") or within("paddle", "libs/libdnnl.so.3")


def aocl_path():
    return within("aoclda", "../aoclda.libs/libblis-mt*")


def openblas_path():
    return within("scipy_openblas32", "lib/libscipy_openblas.so")


def mkl_version(library):
    text = ctypes.create_string_buffer(200)
    library.mkl_get_version_string(text, 200)
    return text.value.decode().replace("Intel(R) oneAPI Math Kernel Library ", "").split("-")[0]


def openblas_version(library):
    library.scipy_openblas_get_config.restype = ctypes.c_char_p
    library.scipy_openblas_get_corename.restype = ctypes.c_char_p
    text = library.scipy_openblas_get_config().decode().split()[1]
    return f"{text}, {library.scipy_openblas_get_corename().decode()}"


def aocl_version(library):
    library.bli_info_get_version_str.restype = ctypes.c_char_p
    return library.bli_info_get_version_str().decode()


class DnnlVersion(ctypes.Structure):
    _fields_ = [("part", ctypes.c_int * 3), ("hash", ctypes.c_char_p)]


def dnnl_version(library):
    library.dnnl_version.restype = ctypes.POINTER(DnnlVersion)
    return ".".join(map(str, library.dnnl_version().contents.part))


MKL = Library("MKL", mkl_path, packs=True, serial=(("MKL_THREADING_LAYER", "SEQUENTIAL"),))
OPENBLAS = Library("OpenBLAS", openblas_path, prefix="scipy_")
AOCL = Library("AOCL-BLAS", aocl_path, packs=True)
ONEDNN = Library("oneDNN", dnnl_path, kind=DNNL)
VERSIONS = {
    "MKL": mkl_version,
    "OpenBLAS": openblas_version,
    "AOCL-BLAS": aocl_version,
    "oneDNN": dnnl_version,
}


def numbers(threads):
    """The number of threads as all of these libraries read it."""
    names = ("OMP", "MKL", "OPENBLAS", "BLIS")
    return {f"{name}_NUM_THREADS": str(threads) for name in names}


class Blas(Peer):
    def __init__(self, library):
        self.library = library

    def environment(self, threads):
        return {**numbers(threads), **self.library.beside()}

    def load(self, threads):
        self.blas = self.library.open()
        return VERSIONS[self.library.name](self.blas)


def i32(*values):
    return tuple(map(ctypes.c_int, values))


def i64(*values):
    return tuple(map(ctypes.c_int64, values))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def prepared(function, *arguments):
    return lambda: function(*arguments)


ONE, ZERO = ctypes.c_float(1), ctypes.c_float(0)


class Sgemm(Blas):
    stages = ("project",)

    def __init__(self, library):
        super().__init__(library)
        self.name = f"{library.name} sgemm"

    def prepare(self, shape, inputs, threads):
        w = memory.aligned_copy(np.concatenate(list(inputs["w"]), axis=1))
        out = memory.aligned((shape.tokens, shape.width))
        m, n, k = shape.tokens, shape.width, shape.d_model
        x = inputs["x"]
        if self.library.kind == DNNL:
            plain = ctypes.c_char(b"N")
            run = prepared(
                self.blas.dnnl_sgemm, plain, plain, *i64(m, n, k), ONE, pointer(x), *i64(k),
                pointer(w), *i64(n), ZERO, pointer(out), *i64(n),
            )
        else:
            run = prepared(
                getattr(self.blas, self.library.prefix + "cblas_sgemm"),
                *i32(ROW_MAJOR, PLAIN, PLAIN, m, n, k), ONE, pointer(x), *i32(k),
                pointer(w), *i32(n), ZERO, pointer(out), *i32(n),
            )
        return Call(run, lambda: out, keep=(w, x))


class PackedSgemm(Blas):
    stages = ("project",)

    def __init__(self, library):
        super().__init__(library)
        self.name = f"{library.name} sgemm, packed"

    def prepare(self, shape, inputs, threads):
        w = memory.aligned_copy(np.concatenate(list(inputs["w"]), axis=1))
        out = memory.aligned((shape.tokens, shape.width))
        m, n, k = shape.tokens, shape.width, shape.d_model
        x, blas = inputs["x"], self.blas
        blas.cblas_sgemm_pack_get_size.restype = ctypes.c_size_t
        size = blas.cblas_sgemm_pack_get_size(*i32(MATRIX_B, m, n, k))
        packed = memory.aligned_part(size // 4 + 1)
        blas.cblas_sgemm_pack(*i32(ROW_MAJOR, MATRIX_B, PLAIN, m, n, k), ONE, pointer(w),
                              *i32(n), pointer(packed))
        run = prepared(
            blas.cblas_sgemm_compute, *i32(ROW_MAJOR, PLAIN, PACKED, m, n, k), pointer(x),
            *i32(k), pointer(packed), *i32(n), ZERO, pointer(out), *i32(n),
        )
        return Call(run, lambda: out, keep=(packed, x))


class ByHand(Blas):
    stages = ("attention", "decode")
    stored = ("f32",)

    def __init__(self, library):
        super().__init__(library)
        self.name = f"by hand, {library.name}"

    def environment(self, threads):
        return {**numbers(1), **self.library.beside(), **dict(self.library.serial)}

    def prepare(self, shape, inputs, threads):
        out = memory.aligned(inputs["q"].shape)
        describe = native.folded_call if shape.stage == "decode" else native.attention_call
        call = describe(shape, inputs, out, threads)
        name = "dnnl_sgemm" if self.library.kind == DNNL else "cblas_sgemm"
        sgemm = ctypes.cast(getattr(self.blas, self.library.prefix + name), ctypes.c_void_p)
        library = native.open_library()
        made = library.native_by_hand(call, sgemm, self.library.kind)
        run = native.bound(library.native_by_hand_run, made)
        return Call(run, lambda: out, keep=(inputs, call))


LIBRARIES = (ONEDNN, MKL, OPENBLAS, AOCL)
PEERS = [
    *(Sgemm(library) for library in LIBRARIES),
    *(PackedSgemm(library) for library in LIBRARIES if library.packs),
    *(ByHand(library) for library in LIBRARIES),
]
