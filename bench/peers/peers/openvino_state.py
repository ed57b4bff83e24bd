# SPDX-License-Identifier: Apache-2.0
"""OpenVINO: decoding with a stateful model, whose key/value cache its CPU plugin keeps itself.

Past keys and values are variables of the model; the new token is concatenated to them and its
attention computed, which the plugin fuses to one operator with a cache in the precision that is
asked for. Each call makes the cache one token longer, so from time to time it is set back: in a
call that takes long for it, which the median does not see. On average it has `length` tokens.
"""

import numpy as np

from harness import memory
from harness.peer import Call, Peer, Unsupported

PRECISIONS = {"f32": "f32", "f16": "f16", "bf16": "bf16", "i8": "u8"}


class Stateful(Peer):
    """Computes in float32, or, as OpenVINO does by itself on CPUs that know bfloat16, in that."""

    stages = ("decode",)

    def __init__(self, precision="f32", stored=Peer.stored):
        self.name = "openvino stateful" + (f", {precision}" if precision != "f32" else "")
        self.precision = precision
        self.stored = stored

    def load(self, threads):
        import openvino

        self.openvino = openvino
        return openvino.__version__.split("-")[0]

    def cache(self, shape, name, new):
        """A variable of the past tokens, with the new one behind them."""
        ov, ops = self.openvino, self.openvino.opset13
        size = [1, shape.kv_heads, -1, shape.head_dim]
        info = ov.op.util.VariableInfo()
        info.data_shape, info.data_type = ov.PartialShape(size), ov.Type.f32
        info.variable_id = name
        variable = ov.op.util.Variable(info)
        none = ops.constant(np.zeros((1, shape.kv_heads, 0, shape.head_dim), np.float32))
        past = ops.read_value(none, variable)
        both = ops.concat([ops.gather(past, self.beam, ops.constant(0)), new], 2)
        return both, ops.assign(both, variable)

    def grouped(self, shape, kv):
        """Repeated for the heads of a group, in the way that the plugin knows."""
        ops, group = self.openvino.opset13, shape.q_heads // shape.kv_heads
        if group == 1:
            return kv
        wide = ops.unsqueeze(kv, ops.constant(2))
        size = ops.constant(np.array([1, shape.kv_heads, group, 1, shape.head_dim], np.int64))
        wide = ops.broadcast(wide, size, broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(
            wide, ops.constant(np.array([0, shape.q_heads, -1, shape.head_dim])), special_zero=True
        )

    def model(self, shape):
        ops, kind = self.openvino.opset13, self.openvino.Type
        heads = {"q": shape.q_heads, "k": shape.kv_heads, "v": shape.kv_heads}
        inputs = [ops.parameter([1, n, -1, shape.head_dim], kind.f32, name=x) for x, n in heads.items()]
        self.beam = ops.parameter([-1], kind.i32, name="beam_idx")
        q, k, v = inputs
        (keys, kept_k), (values, kept_v) = self.cache(shape, "k", k), self.cache(shape, "v", v)
        keys, values = self.grouped(shape, keys), self.grouped(shape, values)
        out = ops.scaled_dot_product_attention(q, keys, values, causal=False)
        return self.openvino.Model(
            [ops.result(out)], [kept_k, kept_v], [*inputs, self.beam], "peer"
        )

    def prepare(self, shape, inputs, threads):
        ov = self.openvino
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
            "KV_CACHE_PRECISION": PRECISIONS[shape.stored],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        try:
            compiled = ov.Core().compile_model(self.model(shape), "CPU", options)
        except RuntimeError as error:
            raise Unsupported(str(error).splitlines()[-1][:100]) from None
        request = compiled.create_infer_request()
        step = max(8, shape.length // 64)  # by so much it grows
        past = {name: inputs[name][None, :, : shape.length - 1 - step // 2] for name in "kv"}
        token = {name: memory.aligned_copy(inputs[name][None, :, -1:]) for name in "kv"}
        out = memory.aligned((1, shape.q_heads, 1, shape.head_dim))
        arrays = [memory.aligned_copy(inputs["q"][None]), token["k"], token["v"], np.zeros(1, np.int32)]
        for i, array in enumerate(arrays):
            request.set_input_tensor(i, ov.Tensor(array, shared_memory=True))
        request.set_output_tensor(0, ov.Tensor(out, shared_memory=True))

        def set_back(states):
            for state in request.query_state():
                state.state = ov.Tensor(np.ascontiguousarray(states[state.name]))

        calls = 0

        def run():
            nonlocal calls
            if calls % step == 0:
                set_back(past)
            calls += 1
            request.infer()

        def output():
            set_back({name: inputs[name][None, :, :-1] for name in "kv"})
            request.infer()
            return out[0].copy()

        return Call(run, output, keep=(compiled, request, arrays))


PEERS = [Stateful(), Stateful("bf16", ("bf16", "i8"))]
