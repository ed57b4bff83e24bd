# SPDX-License-Identifier: Apache-2.0
"""One shape, all peers: rounds in which each has its turn, in random order.

The machine's speed is sampled within each turn (the FMA peak of one core), and the time that the
peer could not run. A turn during which the peak was more than 5 % under the median of
the shape's samples, or more than 5 % of the time was lost, is run again, a few times at most.
"""

import random
import statistics
import tempfile
from pathlib import Path

from . import judge
from .remote import Crashed

TRIES = 4


class Entry:
    """What is known of one peer at one shape."""

    def __init__(self, remote, answer, tolerance):
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
        if self.error is not None and not self.error <= tolerance:
            self.state, self.reason = "wrong", f"error {self.error:.1e}"

    def take_turn(self, budget, samples):
        """One more measurement; samples: the peaks seen so far for the same vector width."""
        attempts = []
        while not attempts or (len(attempts) < TRIES and not is_quiet(attempts[-1], samples)):
            try:
                attempts.append(self.remote.turn(budget))
            except Crashed as crash:
                self.state, self.reason = "failed", str(crash)
                return
            samples.append(attempts[-1]["peak"])
        self.noisy += not is_quiet(attempts[-1], samples)
        best = min(attempts, key=lambda turn: turn["lost"] - turn["peak"] / max(samples))
        self.seconds.append(best["seconds"])
        self.peaks.append(best["peak"])


def is_quiet(turn, samples):
    """Whether the machine was left to this turn alone."""
    return turn["lost"] < 0.05 and turn["peak"] > 0.95 * statistics.median(samples)


def compete(shape, remotes, rounds, budget):
    """The entries of all remotes that take this shape."""
    with tempfile.TemporaryDirectory() as folder:
        judge.save(shape, Path(folder))
        entries = [
            Entry(remote, remote.begin(shape, folder), judge.tolerance(shape))
            for remote in remotes
            if remote.peer.takes(shape)
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
