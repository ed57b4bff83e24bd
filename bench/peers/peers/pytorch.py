# SPDX-License-Identifier: Apache-2.0
"""PyTorch: scaled_dot_product_attention with each backend that it has on a CPU, its gradients by
autograd, and linear.

The backend is chosen once, around all calls. linear has an out= form, which spares it an
allocation; scaled_dot_product_attention has none.
"""

import functools

import numpy as np

from harness import memory
from harness.peer import Call, Peer, Unsupported


class Torch(Peer):
    def load(self, threads):
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch = torch
        return torch.__version__

    def tensor(self, array):
        return self.torch.from_numpy(array)


class Attention(Torch):
    def __init__(self, backend):
        self.name = f"pytorch sdpa {backend}"
        self.backend = {"flash": "FLASH_ATTENTION", "math": "MATH"}[backend]

    def attend(self, shape):
        """The operator with this shape's options, and what keeps it at its backend."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        chosen = sdpa_kernel(getattr(SDPBackend, self.backend))
        chosen.__enter__()
        options = {"is_causal": shape.causal, "enable_gqa": shape.kv_heads != shape.q_heads}
        attend = self.torch.nn.functional.scaled_dot_product_attention
        return functools.partial(attend, **options), chosen

    def prepare(self, shape, inputs, threads):
        """The operator would repeat K and V of a group in every call; here it gets them repeated."""
        attend, chosen = self.attend(shape)
        attend = functools.partial(attend, enable_gqa=False)
        q, k, v = (
            self.tensor(memory.expanded(inputs[name], shape.q_heads)).unsqueeze(0) for name in "qkv"
        )

        def run():
            return attend(q, k, v)

        return Call(run, lambda: run()[0].numpy(), keep=chosen)


class Decode(Attention):
    """One query a head over keys and values as they stand; nothing is appended. folded: the query
    heads of a group as rows of one head, which spares the operator to know of groups."""

    stages = ("decode",)
    stored = ("f32", "f16", "bf16")

    def __init__(self, backend, folded):
        super().__init__(backend)
        self.folded = folded
        self.name += ", folded" if folded else ""

    def typed(self, array, kind):
        """The array in its type, page-aligned as everyone's."""
        made = self.tensor(array).to(kind).unsqueeze(0)
        if kind == self.torch.float32:
            return made
        return self.tensor(memory.aligned_copy(made.view(self.torch.int16).numpy())).view(kind)

    def prepare(self, shape, inputs, threads):
        kinds = {"f32": self.torch.float32, "f16": self.torch.float16, "bf16": self.torch.bfloat16}
        attend, chosen = self.attend(shape)
        q, k, v = (self.typed(inputs[name], kinds[shape.stored]) for name in "qkv")
        if self.folded:
            q = q.view(1, shape.kv_heads, shape.q_heads // shape.kv_heads, shape.head_dim)
            attend = functools.partial(attend, enable_gqa=False)

        def run():
            return attend(q, k, v)

        def output():
            return run().float().reshape(shape.q_heads, 1, shape.head_dim).numpy()

        return Call(run, output, keep=chosen)


class Learning(Attention):
    """Forward and backward through autograd. Gradients are set to None between calls, which its
    tuning guide calls the fastest (torch.autograd.grad, and adding to gradients that stay, take the
    same time), and enable_gqa repeats K and V faster than repeat_interleave does."""

    stages = ("learning",)

    def __init__(self, backend):
        super().__init__(backend)
        self.name = f"pytorch autograd {backend}"

    def prepare(self, shape, inputs, threads):
        self.torch.set_grad_enabled(True)
        attend, chosen = self.attend(shape)
        inputs = {name: self.tensor(array).unsqueeze(0) for name, array in inputs.items()}
        d_out = inputs.pop("d_out")
        leaves = q, k, v = [inputs[name].requires_grad_() for name in "qkv"]

        def run():
            q.grad = k.grad = v.grad = None
            attend(q, k, v).backward(d_out)

        def output():
            return [head for leaf in leaves for head in leaf.grad[0].numpy()]

        return Call(run, output, keep=chosen)


class Linear(Torch):
    """weight is [width, d_model], as PyTorch's layers store it."""

    name = "pytorch linear"
    stages = ("project",)

    def prepare(self, shape, inputs, threads):
        out = memory.aligned((shape.tokens, shape.width))
        weight = memory.aligned_copy(np.concatenate(list(inputs["w"]), axis=1).T)
        x, w, y = self.tensor(inputs["x"]), self.tensor(weight), self.tensor(out)
        linear = self.torch._C._nn.linear
        return Call(lambda: linear(x, w, out=y), lambda: out)


class PackedLinear(Torch):
    """What PyTorch's compiler makes of linear when weights are frozen: oneDNN's matmul over
    weights that oneDNN reordered ahead of time."""

    name = "pytorch linear, packed"
    stages = ("project",)

    def prepare(self, shape, inputs, threads):
        weight = memory.aligned_copy(np.concatenate(list(inputs["w"]), axis=1).T)
        x = self.tensor(inputs["x"])
        w = self.torch.ops.mkldnn._reorder_linear_weight(self.tensor(weight), shape.tokens)
        linear = self.torch.ops.mkldnn._linear_pointwise

        def run():
            return linear(x, w, None, "none", [], "")

        return Call(run, lambda: run().numpy())


BACKENDS = ("flash", "math")
PEERS = [
    *map(Attention, BACKENDS),
    *map(Learning, BACKENDS),
    Decode("flash", False),
    Decode("flash", True),
    Decode("math", True),
    Linear(),
    PackedLinear(),
]
