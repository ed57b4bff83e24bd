# SPDX-License-Identifier: Apache-2.0
"""What a module in peers/ provides."""


class Unsupported(Exception):
    """A shape that this peer has no operation for; the text says why."""


class Call:
    """A prepared call: run() is what is timed, output() is what it computed.

    run takes no argument and returns nothing of interest. output returns [heads, length, dim] of
    attention, [heads, 1, dim] of decode, [tokens, width] of project, and of learning a list of dQ, dK and dV, head by head;
    it may convert a layout.
    """

    def __init__(self, run, output, keep=()):
        self.run = run
        self.output = output
        self.keep = keep  # whatever must live as long as the call


class Peer:
    """One line of the table. Everything but the name runs in a process of the peer's own."""

    name = ""
    stages = ("attention",)
    stored = ("f32", "f16", "bf16", "i8")  # decode: the types of cache that it has
    vector_bytes = None  # of the FMA peak it is measured by; None: the widest

    def takes(self, shape):
        return shape.stage in self.stages and getattr(shape, "stored", self.stored[0]) in self.stored

    def environment(self, threads):
        """Environment variables to start the process with."""
        return {"OMP_NUM_THREADS": str(threads)}

    def load(self, threads):
        """Imports or opens the library, without starting a thread; returns its version.

        ImportError or OSError: not installed here.
        """
        raise NotImplementedError

    def prepare(self, shape, inputs, threads):
        """A Call for this shape. inputs: q, k, v (learning: and d_out) or x, w, page-aligned, which go
        unless the call keeps them. May raise Unsupported."""
        raise NotImplementedError
