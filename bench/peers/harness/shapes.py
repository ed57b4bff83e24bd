# SPDX-License-Identifier: Apache-2.0
"""The work that is compared, and what qkv is to reach on it.

Flops of attention count 4 * q_len * kv_len * head_dim a head, half of that under a causal mask; of
learning 14, 4 forward and 10 backward.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Attention:
    """softmax(Q K^T / sqrt(head_dim)) V for one sequence; queries and keys equally many."""

    q_heads: int
    kv_heads: int
    head_dim: int
    length: int
    causal: bool

    stage = "attention"

    @property
    def family(self):
        heads = f"h{self.q_heads}"
        if self.kv_heads != self.q_heads:
            heads = f"gqa {self.q_heads}:{self.kv_heads}"
        return f"{heads} d{self.head_dim} {'causal' if self.causal else 'full'}"

    @property
    def label(self):
        """What tells it from the others of its family."""
        return str(self.length)

    @property
    def name(self):
        return f"{self.family} {self.length}"

    @property
    def flops(self):
        return 4 * self.length**2 * self.head_dim * self.q_heads // (2 if self.causal else 1)

    @property
    def target(self):
        """How many times faster than the fastest peer, or None for no promise."""
        if self.head_dim == 32:
            return {16: 1.5, 32: 1.4, 64: 1.15}.get(self.length)
        if self.causal:
            return 1.5 if self.length == 128 else 1.25 if self.length >= 512 else None
        return None

    @property
    def never_behind(self):
        """The lower end of the ratio's interval is at least 0.98."""
        return not self.causal and self.length >= 128


@dataclass(frozen=True)
class OddAttention(Attention):
    """Sizes that are not powers of two, or larger than most: each has no family of its own."""

    @property
    def family(self):
        return "h8 full, other sizes"

    @property
    def label(self):
        return f"d{self.head_dim}\n{self.length}"

    @property
    def name(self):
        return f"h8 d{self.head_dim} full {self.length}"


@dataclass(frozen=True)
class Learning(Attention):
    """Attention and its gradients: dQ, dK and dV from that of the output."""

    stage = "learning"
    never_behind = False

    @property
    def family(self):
        return f"learning {super().family}"

    @property
    def flops(self):
        return super().flops // 4 * 14

    @property
    def target(self):
        return 2 if self.causal else 1.5


@dataclass(frozen=True)
class Decode:
    """One query a head over a cache of `length` tokens that are stored as f32, f16, bf16 or i8."""

    q_heads: int
    kv_heads: int
    head_dim: int
    stored: str
    length: int

    stage = "decode"
    causal = False
    target = 1.25
    never_behind = False

    @property
    def family(self):
        groups = "" if self.q_heads == self.kv_heads else f":{self.kv_heads}"
        return f"decode {self.stored} h{self.q_heads}{groups} d{self.head_dim}"

    @property
    def label(self):
        return str(self.length)

    @property
    def name(self):
        return f"{self.family} {self.length}"

    @property
    def flops(self):
        return 4 * self.length * self.head_dim * self.q_heads

    @property
    def bytes(self):
        """Of K and V; those of scales are not counted."""
        size = {"f32": 4, "f16": 2, "bf16": 2, "i8": 1}[self.stored]
        return 2 * self.length * self.head_dim * self.kv_heads * size


@dataclass(frozen=True)
class Project:
    """out [tokens, matrices * width] = x [tokens, d_model] W, one matrix after the other."""

    tokens: int
    d_model: int
    matrices: int
    head_dim: int

    stage = "project"
    family = "project"
    target = None
    never_behind = True

    @property
    def width(self):
        return self.d_model * self.matrices

    @property
    def label(self):
        return f"{self.tokens}\n{self.d_model}" + (" x3" if self.matrices == 3 else "")

    @property
    def name(self):
        return f"project {self.tokens}x{self.d_model}" + (" x3" if self.matrices == 3 else "")

    @property
    def flops(self):
        return 2 * self.tokens * self.d_model * self.width

    @property
    def weight_bytes(self):
        return 4 * self.d_model * self.width


LENGTHS = (128, 256, 512, 1024, 2048, 4096)
DECODE_LENGTHS = (256, 1024, 4096, 16384, 65536)
LEARNING_LENGTHS = {64: (128, 512, 1024, 2048), 128: (128, 512, 1024)}

SHAPES = (
    [Attention(12, 12, 32, n, False) for n in (16, 32, 64)]
    + [
        Attention(8, 8, dim, n, causal)
        for dim in (64, 128)
        for causal in (False, True)
        for n in LENGTHS
    ]
    + [OddAttention(8, 8, dim, 1024, False) for dim in (80, 96, 112, 256)]
    + [OddAttention(8, 8, 64, 1000, False)]
    + [Attention(32, 8, 128, n, True) for n in (512, 1024)]
    + [
        Project(128, 384, 3, 32),
        Project(512, 768, 3, 64),
        Project(512, 4096, 1, 128),
        Project(1, 4096, 1, 128),
        Project(8, 4096, 1, 128),
    ]
    + [Learning(12, 12, 32, 64, False)]
    + [
        Learning(8, 8, dim, n, causal)
        for dim, lengths in LEARNING_LENGTHS.items()
        for causal in (False, True)
        for n in lengths
    ]
    + [Learning(32, 8, 128, 512, True)]
    + [
        Decode(q_heads, 8, dim, stored, n)
        for q_heads, dim in ((32, 128), (8, 64))
        for stored in ("f32", "f16", "bf16", "i8")
        for n in DECODE_LENGTHS
    ]
)

STAGES = tuple(dict.fromkeys(shape.stage for shape in SHAPES))

QUICK = (
    "h12 d32 full 64",
    "h8 d64 full 512",
    "h8 d128 causal 512",
    "gqa 32:8 d128 causal 512",
    "project 128x384 x3",
    "project 8x4096",
    "learning h12 d32 full 64",
    "learning h8 d64 causal 512",
    "decode f32 h32:8 d128 1024",
    "decode i8 h32:8 d128 1024",
)


def last_cache():
    """Bytes of the last-level cache; infinite if the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text()
    except OSError:
        return float("inf")
    return int(text.rstrip("K\n")) << 10


def target(shape, threads):
    """How many times faster than the fastest peer qkv is to be at this number of threads; None for
    no promise."""
    if shape.stage == "decode" and threads == 1 and shape.bytes > last_cache():
        return 1.6
    return shape.target
