# SPDX-License-Identifier: Apache-2.0
"""A peer's process, seen from the comparison. While it is not its turn the process that holds
the prepared call is stopped by a signal, so that no thread of it spins on a core meanwhile."""

import base64
import json
import os
import pickle
import signal
import subprocess
import sys


# Every peer keeps the memory that it frees within a call, instead of getting it from the system
# and clearing it again in the next.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(4 << 30)}


class Crashed(Exception):
    """The peer's process ended in the middle of a shape."""


class Remote:
    def __init__(self, peer, threads):
        self.peer = peer
        self.pid = None
        environment = {**os.environ, **ALLOCATOR, **peer.environment(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.worker", peer.name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        answer = self._receive()
        self.version = answer.get("version", "")
        self.unavailable = None if "version" in answer else answer.get("unavailable", "crashed")

    def _send(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer tells

    def _receive(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"ended": None}

    def _signal(self, number):
        if self.pid is not None:
            os.kill(self.pid, number)

    def begin(self, shape, folder):
        """Prepares the shape: an answer with unsupported, failed, or pid, error and memory."""
        packed = base64.b64encode(pickle.dumps(shape)).decode()
        self._send(do="shape", shape=packed, folder=str(folder))
        answer = self._receive()
        self.pid = answer.get("pid")
        if self.pid is None:
            if "ended" in answer:
                return {"failed": f"the process ended, status {answer['ended']}"}
            self._receive()
        self._signal(signal.SIGSTOP)
        return answer

    def turn(self, budget):
        """seconds of a call; the core's FMA peak meanwhile, GFLOP/s; lost, the share of the time
        that the peer could not run."""
        self._signal(signal.SIGCONT)
        self._send(do="turn", budget=budget)
        answer = self._receive()
        if "seconds" not in answer:
            self.pid = None
            raise Crashed(f"the process ended, status {answer.get('ended')}")
        self._signal(signal.SIGSTOP)
        return answer

    def end(self):
        """Forgets the shape."""
        if self.pid is not None:
            self._signal(signal.SIGCONT)
            self.pid = None
            self._send(do="end")
            self._receive()

    def close(self):
        self._signal(signal.SIGCONT)
        self.pid = None
        self.process.stdin.close()
        self.process.wait()
