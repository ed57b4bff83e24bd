# SPDX-License-Identifier: Apache-2.0
"""One shape, all peers: rounds in which each has its turn, in random order.

The machine's speed is sampled within each turn (the FMA peak of one core). A turn during which
it was more than 5 % under the median of the shape's samples is run again, a few times at most.
"""

import random
import statistics
import tempfile
from pathlib import Path

from . import judge
from .remote import Crashed

TRIES = 4
ENOUGH_SAMPLES = 5


class Entry:
    """What is known of one peer at one shape."""

    def __init__(self, remote, answer):
        self.remote = remote
        self.name = remote.peer.name
        self.version = remote.version
        self.error = answer.get("error")
        self.memory = answer.get("memory")
        self.seconds, self.peaks = [], []
        self.noisy = 0  # turns that stayed slow in spite of all tries
        self.state, self.reason = "timed", ""
        for state in ("unsupported", "failed"):
            if state in answer:
                self.state, self.reason = state, answer[state]
        if self.error is not None and not self.error <= judge.TOLERANCE:
            self.state, self.reason = "wrong", f"error {self.error:.1e}"

    def take_turn(self, budget, samples):
        """One more measurement; samples: the peaks seen so far for the same vector width."""
        attempts = []
        while len(attempts) < TRIES:
            try:
                attempts.append(self.remote.turn(budget))
            except Crashed as crash:
                self.state, self.reason = "failed", str(crash)
                return
            samples.append(attempts[-1][1])
            if attempts[-1][1] >= 0.95 * statistics.median(samples) or len(samples) < ENOUGH_SAMPLES:
                break
        else:
            self.noisy += 1
        seconds, peak = max(attempts, key=lambda attempt: attempt[1])
        self.seconds.append(seconds)
        self.peaks.append(peak)


def compete(shape, remotes, rounds, budget):
    """The entries of all remotes that have this stage."""
    with tempfile.TemporaryDirectory() as folder:
        judge.save(shape, Path(folder))
        entries = [
            Entry(remote, remote.begin(shape, folder))
            for remote in remotes
            if shape.stage in remote.peer.stages
        ]
    samples = {}
    for _ in range(rounds):
        running = [entry for entry in entries if entry.state == "timed"]
        random.shuffle(running)
        for entry in running:
            width = entry.remote.peer.vector_bytes
            entry.take_turn(budget, samples.setdefault(width, []))
    for entry in entries:
        entry.remote.end()
    return entries
