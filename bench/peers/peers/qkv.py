# SPDX-License-Identifier: Apache-2.0
"""qkv through its C API: a plan of attention made once, plain calls of the rest, weights packed
ahead, threads from the pool of examples/.

It runs in the best room of the CPU, which everyone is compared with, and in AVX2 beside it.
"""

from harness import memory, native
from harness.peer import Call, Peer, Unsupported

VECTOR_BYTES = {"avx2": 32}


class Qkv(Peer):
    stages = ("attention", "learning", "project", "decode")
    narrow = False

    def __init__(self, room=None):
        self.name = f"qkv {room}" if room else "qkv"
        self.room = room.encode() if room else None
        self.vector_bytes = VECTOR_BYTES.get(room)

    def load(self, threads):
        self.library = native.open_library()
        room = self.library.native_qkv_room(self.room)
        if room is None or (self.room and room != self.room):
            raise OSError("not an instruction set of this CPU and this build")
        if self.room == self.library.native_qkv_room(None):
            raise OSError("the same as qkv: it is the best room of this CPU")
        return f"{self.library.qkv_version().decode()}, {room.decode()}"

    def prepare(self, shape, inputs, threads):
        call, output, keep = getattr(self, shape.stage)(shape, inputs, threads)
        made = getattr(self.library, f"native_qkv_{self.maker(shape)}")(call, self.room)
        if not made:
            raise RuntimeError("qkv refused the call")
        run = native.bound(self.library.native_qkv_run, made)
        if run() != 0:
            raise RuntimeError("qkv failed")
        return Call(run, output, keep=(inputs, call, keep))

    def maker(self, shape):
        """The C function that makes the call, without its prefix."""
        return shape.stage

    def attention(self, shape, inputs, threads):
        out = memory.aligned(inputs["q"].shape)
        return native.attention_call(shape, inputs, out, threads), lambda: out, out

    def project(self, shape, inputs, threads):
        out = memory.aligned((shape.tokens, shape.width))
        return native.project_call(shape, inputs, out, threads), lambda: out, out

    def decode(self, shape, inputs, threads):
        out = memory.aligned(inputs["q"].shape)
        call = native.decode_call(shape, inputs, out, threads, self.narrow)
        cache = memory.aligned((self.library.native_qkv_cache_size(call),), "uint8")
        call.memory = cache.ctypes.data
        return call, lambda: out, (out, cache)

    def learning(self, shape, inputs, threads):
        arrays = {name: memory.aligned(inputs[name[-1]].shape) for name in ("d_q", "d_k", "d_v")}
        arrays["out"] = memory.aligned(inputs["q"].shape)
        arrays["lse"] = memory.aligned((shape.q_heads, shape.length))
        call = native.learning_call(shape, inputs, arrays, threads)
        return call, lambda: [*arrays["d_q"], *arrays["d_k"], *arrays["d_v"]], arrays


class Polynomial(Qkv):
    """With the inlined polynomial of degree 5 for the exponential, as most peers have one, instead of
    SLEEF's, the default."""

    stages = ("attention",)

    def __init__(self):
        super().__init__()
        self.name = "qkv, degree 5"

    def attention(self, shape, inputs, threads):
        call, output, keep = super().attention(shape, inputs, threads)
        call.exp = native.EXP_POLY5
        return call, output, keep


class Attend(Qkv):
    """Decoding without the append, which not every peer does."""

    stages = ("decode",)

    def __init__(self):
        super().__init__()
        self.name = "qkv, without append"

    def maker(self, shape):
        return "attend"


class Narrow(Qkv):
    """Decoding in narrow arithmetic, for the types that this CPU has a variant for."""

    stages = ("decode",)
    stored = ("f16", "bf16", "i8")
    narrow = True

    def __init__(self):
        super().__init__()
        self.name = "qkv, narrow"

    def prepare(self, shape, inputs, threads):
        if not self.library.native_qkv_narrow(native.STORED[shape.stored]):
            raise Unsupported(f"this CPU has no narrow arithmetic for {shape.stored}")
        return super().prepare(shape, inputs, threads)


PEERS = [Qkv(), Qkv("avx2"), Polynomial(), Attend(), Narrow()]
