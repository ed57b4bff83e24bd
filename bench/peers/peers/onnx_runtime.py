# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: MultiHeadAttention, GroupQueryAttention, ONNX's own Attention, and the three
operators that attention is made of. Inputs and outputs are bound to memory once; the pool's
threads spin between operators, which is its default."""

import numpy as np

from harness import memory
from harness.peer import Call, Peer, Unsupported

MICROSOFT = "com.microsoft"


def rows_first(array):
    """[heads, length, dim] to [1, length, heads * dim]."""
    return memory.aligned_copy(array.transpose(1, 0, 2).reshape(1, array.shape[1], -1))


def heads_first(array, heads):
    """And back."""
    return array[0].reshape(array.shape[1], heads, -1).transpose(1, 0, 2)


class Onnx(Peer):
    def load(self, threads):
        import onnx
        import onnxruntime

        self.onnx, self.runtime = onnx, onnxruntime
        return onnxruntime.__version__

    def session(self, nodes, inputs, outputs, threads):
        """A session over a model of these nodes; inputs and outputs are arrays by name."""
        helper = self.onnx.helper

        def info(arrays):
            for name, array in arrays.items():
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                yield helper.make_tensor_value_info(name, kind, array.shape)

        graph = helper.make_graph(nodes, "peer", list(info(inputs)), list(info(outputs)))
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return self.runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def call(self, nodes, inputs, outputs, threads, result):
        session = self.session(nodes, inputs, outputs, threads)
        binding = session.io_binding()
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, a in arrays.items():
                bind(name, "cpu", 0, a.dtype, a.shape, a.ctypes.data)
        run, bound = session._sess.run_with_iobinding, binding._iobinding
        return Call(lambda: run(bound, None), result, keep=(session, binding, inputs, outputs))

    def node(self, kind, inputs, outputs, domain="", **attributes):
        return self.onnx.helper.make_node(kind, inputs, outputs, domain=domain, **attributes)


class MultiHeadAttention(Onnx):
    """Takes Q by rows; K and V by heads, which spares it their transposition."""

    name = "onnxruntime MHA"

    def prepare(self, shape, inputs, threads):
        keys, values = (
            memory.aligned_copy(memory.expanded(inputs[name], shape.q_heads)[None]) for name in "kv"
        )
        arrays = {"q": rows_first(inputs["q"]), "k": keys, "v": values}
        out = memory.aligned(arrays["q"].shape)
        node = self.node("MultiHeadAttention", ["q", "k", "v"], ["o"], MICROSOFT,
                         num_heads=shape.q_heads, unidirectional=int(shape.causal))
        return self.call([node], arrays, {"o": out}, threads,
                         lambda: heads_first(out, shape.q_heads))


class GroupQueryAttention(Onnx):
    """Causal only. It also writes the KV cache, as an input of the next step."""

    name = "onnxruntime GQA"

    def prepare(self, shape, inputs, threads):
        if not shape.causal:
            raise Unsupported("causal only")
        n = shape.length
        arrays = {name: rows_first(inputs[name]) for name in "qkv"}
        arrays["last"] = np.array([n - 1], np.int32)
        arrays["total"] = np.array([n], np.int32)
        outputs = {"o": memory.aligned(arrays["q"].shape)}
        for name in ("present_k", "present_v"):
            outputs[name] = memory.aligned((1, shape.kv_heads, n, shape.head_dim))
        node = self.node("GroupQueryAttention", ["q", "k", "v", "", "", "last", "total"],
                         list(outputs), MICROSOFT, num_heads=shape.q_heads,
                         kv_num_heads=shape.kv_heads)
        return self.call([node], arrays, outputs, threads,
                         lambda: heads_first(outputs["o"], shape.q_heads))


class CachedGroupQueryAttention(Onnx):
    """Decoding: the cache is input and output in one place, and the last token is appended. An int8
    cache has one scale for all, or one a column."""

    stages = ("decode",)

    def __init__(self, quantisation=None):
        self.name = "onnxruntime GQA cached"
        if quantisation:
            self.name = f"onnxruntime GQA int8, {quantisation.split('_')[1].lower()}"
        self.stored = ("i8",) if quantisation else ("f32", "f16")
        self.quantisation = quantisation

    def cache(self, shape, array):
        """As it is stored, and the scales of int8."""
        if not self.quantisation:
            kind = {"f32": np.float32, "f16": np.float16}[shape.stored]
            return memory.aligned_copy(array[None].astype(kind)), None
        axis = 1 if self.quantisation == "PER_CHANNEL" else None
        largest = np.max(np.abs(array), axis=axis, keepdims=True)
        scale = largest / np.float32(127)
        return memory.aligned_copy(np.rint(array / scale).astype(np.int8)[None]), scale.reshape(-1)

    def prepare(self, shape, inputs, threads):
        kind = np.float16 if shape.stored == "f16" else np.float32
        arrays = {"q": rows_first(inputs["q"]).astype(kind)}
        arrays |= {name: rows_first(inputs[name][:, -1:]).astype(kind) for name in "kv"}
        arrays["last"] = np.array([shape.length - 1], np.int32)
        arrays["total"] = np.array([shape.length], np.int32)
        attributes = {"num_heads": shape.q_heads, "kv_num_heads": shape.kv_heads}
        (keys, k_scale), (values, v_scale) = (self.cache(shape, inputs[name]) for name in "kv")
        names = ["q", "k", "v", "past_k", "past_v", "last", "total"]
        arrays |= {"past_k": keys, "past_v": values}
        if self.quantisation:
            arrays |= {"k_scale": k_scale, "v_scale": v_scale}
            names += [*[""] * 5, "k_scale", "v_scale"]
            attributes |= {"kv_cache_bit_width": 8, "k_quant_type": self.quantisation,
                           "v_quant_type": self.quantisation}
        outputs = {"o": memory.aligned(arrays["q"].shape, kind)}
        outputs |= {"present_k": keys, "present_v": values}
        node = self.node("GroupQueryAttention", names, list(outputs), MICROSOFT, **attributes)
        return self.call([node], arrays, outputs, threads,
                         lambda: heads_first(outputs["o"], shape.q_heads))


class Attention(Onnx):
    name = "onnxruntime Attention"

    def prepare(self, shape, inputs, threads):
        arrays = {name: inputs[name][None] for name in "qkv"}
        out = memory.aligned(arrays["q"].shape)
        node = self.node("Attention", ["q", "k", "v"], ["o"], is_causal=int(shape.causal))
        return self.call([node], arrays, {"o": out}, threads, lambda: out[0])


class CachedAttention(Onnx):
    """Decoding with ONNX's operator over keys and values as they stand; nothing is appended."""

    name = "onnxruntime Attention, q 1"
    stages = ("decode",)
    stored = ("f32", "f16")

    def prepare(self, shape, inputs, threads):
        kind = np.float16 if shape.stored == "f16" else np.float32
        arrays = {name: memory.aligned_copy(inputs[name][None].astype(kind)) for name in "qkv"}
        out = memory.aligned(arrays["q"].shape, kind)
        node = self.node("Attention", ["q", "k", "v"], ["o"])
        return self.call([node], arrays, {"o": out}, threads, lambda: out[0])


class ThreeOperators(Onnx):
    """MatMul, Softmax, MatMul over a transposed K; the scale is in Q already."""

    name = "onnxruntime MatMul-Softmax"

    def prepare(self, shape, inputs, threads):
        keys = memory.expanded(inputs["k"], shape.q_heads).transpose(0, 2, 1)
        arrays = {
            "q": memory.aligned_copy(inputs["q"][None] / np.float32(np.sqrt(shape.head_dim))),
            "k": memory.aligned_copy(keys[None]),
            "v": memory.aligned_copy(memory.expanded(inputs["v"], shape.q_heads)[None]),
        }
        out = memory.aligned(arrays["q"].shape)
        scores = "s"
        nodes = [self.node("MatMul", ["q", "k"], ["s"])]
        if shape.causal:
            masked = np.triu(np.full((shape.length,) * 2, -np.inf, np.float32), 1)
            arrays["mask"] = memory.aligned_copy(masked)
            nodes.append(self.node("Add", ["s", "mask"], ["m"]))
            scores = "m"
        nodes.append(self.node("Softmax", [scores], ["a"], axis=-1))
        nodes.append(self.node("MatMul", ["a", "v"], ["o"]))
        return self.call(nodes, arrays, {"o": out}, threads, lambda: out[0])


PEERS = [
    Attention(),
    MultiHeadAttention(),
    GroupQueryAttention(),
    ThreeOperators(),
    CachedGroupQueryAttention(),
    CachedGroupQueryAttention("PER_TENSOR"),
    CachedGroupQueryAttention("PER_CHANNEL"),
    CachedAttention(),
]
