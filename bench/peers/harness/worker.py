# SPDX-License-Identifier: Apache-2.0
"""A peer's own process: python -m harness.worker PEER THREADS.

It opens the library once, and then forks for each shape, so that every shape starts from a clean
heap and a crash costs one shape of one peer. Requests and answers are lines of JSON.
"""

import ctypes
import json
import os
import pickle
import signal
import sys
from base64 import b64decode
from pathlib import Path

from . import clock, judge, memory, native
from .peer import Unsupported
from .register import peer_named


class Channel:
    """Requests from standard input; answers on what was standard output, which is then sent to
    standard error: libraries print."""

    def __init__(self):
        self.answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def receive(self):
        """One line, read byte by byte: parent and child share the pipe."""
        line = bytearray()
        while byte := os.read(0, 1):
            if byte == b"\n":
                return json.loads(line)
            line += byte
        return {"do": "quit"}

    def send(self, **answer):
        self.answers.write(json.dumps(answer) + "\n")


def die_with_parent():
    """Even if this process is stopped at that moment."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def describe(error):
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def measure_memory(call, before):
    """Bytes that the call needs beyond inputs and outputs, at most: what stayed allocated since
    `before` (anonymous bytes, bytes of arrays), and what comes and goes within a call."""
    anonymous, made = before
    stayed = memory.status("RssAnon") - anonymous - (memory.bytes_made() - made)
    return max(stayed, 0) + memory.transient_peak(call.run)


def serve_shape(channel, peer, request, threads, library):
    shape = pickle.loads(b64decode(request["shape"]))
    folder = Path(request["folder"])
    inputs = judge.load_inputs(shape, folder)
    memory.trim()
    before = memory.status("RssAnon"), memory.bytes_made()
    try:
        call = peer.prepare(shape, inputs, threads)
        del inputs  # the call keeps what it needs
        call.run()
    except Unsupported as reason:
        channel.send(unsupported=str(reason))
        return
    except Exception as error:
        channel.send(failed=describe(error))
        return
    used = measure_memory(call, before)
    error = judge.largest_error(call.output(), folder)
    expected = clock.estimate(call.run)
    channel.send(pid=os.getpid(), error=error, memory=used, expected=expected)
    width = peer.vector_bytes or library.native_vector_bytes()
    while (request := channel.receive())["do"] == "turn":
        peak, lost = library.native_peak(width), clock.Lost()
        seconds = clock.turn(call.run, expected, request["budget"])
        share = lost.share()
        channel.send(seconds=seconds, peak=max(peak, library.native_peak(width)), lost=share)


def main():
    die_with_parent()
    peer, threads = peer_named(sys.argv[1]), int(sys.argv[2])
    channel = Channel()
    library = native.open_library()
    try:
        channel.send(version=peer.load(threads))
    except (ImportError, OSError, AttributeError) as error:
        channel.send(unavailable=describe(error))
        return
    while (request := channel.receive())["do"] == "shape":
        child = os.fork()
        if child == 0:
            die_with_parent()
            serve_shape(channel, peer, request, threads, library)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        channel.send(ended=status)


if __name__ == "__main__":
    main()
