# SPDX-License-Identifier: Apache-2.0
"""OpenVINO: its scaled dot-product attention operator, for latency, in float32 (its default on
CPUs with bfloat16 instructions is bfloat16)."""

from harness import memory
from harness.peer import Call, Peer


class OpenVino(Peer):
    name = "openvino sdpa"

    def load(self, threads):
        import openvino

        self.openvino = openvino
        return openvino.__version__.split("-")[0]

    def model(self, arrays, causal):
        ops, kind = self.openvino.opset13, self.openvino.Type.f32
        parameters = [ops.parameter(list(array.shape), kind) for array in arrays]
        out = ops.scaled_dot_product_attention(*parameters, causal=causal)
        return self.openvino.Model([out], parameters, "peer")

    def prepare(self, shape, inputs, threads):
        ov = self.openvino
        keys, values = inputs["k"], inputs["v"]
        if shape.kv_heads != shape.q_heads:
            keys, values = (memory.expanded(a, shape.q_heads) for a in (keys, values))
        arrays = [array[None] for array in (inputs["q"], keys, values)]
        out = memory.aligned(arrays[0].shape)
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        compiled = ov.Core().compile_model(self.model(arrays, shape.causal), "CPU", options)
        request = compiled.create_infer_request()
        for i, array in enumerate(arrays):
            request.set_input_tensor(i, ov.Tensor(array, shared_memory=True))
        request.set_output_tensor(0, ov.Tensor(out, shared_memory=True))
        return Call(request.infer, lambda: out[0], keep=(compiled, request, arrays))


PEERS = [OpenVino()]
