# SPDX-License-Identifier: Apache-2.0
"""oneDNN through its C API: matmul over weights in the layout that it asks for, and the attention
of its graph API, which fuses the operators into one kernel.

The numbers below are of the C API of oneDNN 3, which keeps them.
"""

import ctypes

import numpy as np

from harness import memory
from harness.peer import Call

from . import blas

F32, TAG_ANY, CPU, IN_ORDER, FUSION = 3, 1, 1, 1, 1
QUERY_SRC, QUERY_WEIGHTS, QUERY_DST, QUERY_SCRATCHPAD = 129, 131, 133, 136
SRC, DST, WEIGHTS, SCRATCHPAD = 1, 17, 33, 80
ADD, DIVIDE, MATMUL, SOFTMAX = 2, 20, 39, 64
AXIS, TRANSPOSE_B = 0x30, 0x66
ALLOCATE = ctypes.c_void_p(-1)

Dims = ctypes.c_int64 * 12


def dims(values):
    return Dims(*values)


class LogicalTensor(ctypes.Structure):
    _fields_ = [
        ("id", ctypes.c_size_t),
        ("ndims", ctypes.c_int),
        ("dims", Dims),
        ("data_type", ctypes.c_int),
        ("property", ctypes.c_int),
        ("layout_type", ctypes.c_int),
        ("strides", Dims),
    ]


class Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_int), ("memory", ctypes.c_void_p)]


class OneDnn(blas.Blas):
    def __init__(self):
        super().__init__(blas.ONEDNN)

    def do(self, function, *arguments):
        status = getattr(self.blas, function)(*arguments)
        if status != 0:
            raise RuntimeError(f"{function} gives status {status}")

    def make(self, function, *arguments):
        """What a constructor writes through its first argument."""
        made = ctypes.c_void_p()
        self.do(function, ctypes.byref(made), *arguments)
        return made

    def open_stream(self):
        self.engine = self.make("dnnl_engine_create", CPU, ctypes.c_size_t(0))
        self.stream = self.make("dnnl_stream_create", self.engine, IN_ORDER)

    def executed(self, function, *arguments):
        """A call that runs on the stream and waits for it (on a CPU it is done by then)."""
        execute, wait = getattr(self.blas, function), self.blas.dnnl_stream_wait
        stream = self.stream

        def run():
            execute(*arguments)
            wait(stream)

        return run


class Matmul(OneDnn):
    name = "oneDNN matmul, packed"
    stages = ("project",)

    def descriptor(self, size, tag=None):
        if tag is not None:
            return self.make("dnnl_memory_desc_create_with_tag", 2, dims(size), F32, tag)
        strides = dims((size[1], 1))
        return self.make("dnnl_memory_desc_create_with_strides", 2, dims(size), F32, strides)

    def memory(self, descriptor, handle):
        return self.make("dnnl_memory_create", descriptor, self.engine, handle)

    def query(self, primitive, what):
        query = self.blas.dnnl_primitive_desc_query_md
        query.restype = ctypes.c_void_p
        return ctypes.c_void_p(query(primitive, what, 0))

    def primitive(self, descriptor):
        return self.make("dnnl_primitive_create", descriptor)

    def arguments(self, **memories):
        names = {"src": SRC, "dst": DST, "weights": WEIGHTS, "scratchpad": SCRATCHPAD}
        pairs = [Argument(names[name], m.value) for name, m in memories.items()]
        return len(pairs), (Argument * len(pairs))(*pairs)

    def reorder(self, source, source_descriptor, target, target_descriptor):
        description = self.make("dnnl_reorder_primitive_desc_create", source_descriptor,
                                self.engine, target_descriptor, self.engine, None)
        arguments = self.arguments(src=source, dst=target)
        self.do("dnnl_primitive_execute", self.primitive(description), self.stream, *arguments)
        self.do("dnnl_stream_wait", self.stream)

    def prepare(self, shape, inputs, threads):
        self.open_stream()
        w = memory.aligned_copy(np.concatenate(list(inputs["w"]), axis=1))
        x, out = inputs["x"], memory.aligned((shape.tokens, shape.width))
        source, target = self.descriptor(x.shape), self.descriptor(out.shape)
        attributes = self.make("dnnl_primitive_attr_create")
        self.do("dnnl_primitive_attr_set_scratchpad_mode", attributes, 1)
        weights = self.descriptor(w.shape, TAG_ANY)
        description = self.make("dnnl_matmul_primitive_desc_create", self.engine, source, weights,
                                None, target, attributes)
        chosen = self.query(description, QUERY_WEIGHTS)
        packed = self.memory(chosen, ALLOCATE)
        plain = self.descriptor(w.shape)
        self.reorder(self.memory(plain, blas.pointer(w)), plain, packed, chosen)
        scratchpad = self.memory(self.query(description, QUERY_SCRATCHPAD), ALLOCATE)
        count, arguments = self.arguments(
            src=self.memory(source, blas.pointer(x)),
            weights=packed,
            dst=self.memory(target, blas.pointer(out)),
            scratchpad=scratchpad,
        )
        run = self.executed("dnnl_primitive_execute", self.primitive(description), self.stream,
                            count, arguments)
        return Call(run, lambda: out, keep=(x, arguments))


class Graph(OneDnn):
    """MatMul, Divide, Add of a mask if there is one, Softmax, MatMul, which the library fuses.

    Heads stand in two dimensions, [kv_heads, group]; K and V are broadcast over the second.
    """

    name = "oneDNN graph sdpa"

    def tensor(self, number, size):
        """The description of a dense tensor."""
        strides = [int(np.prod(size[i + 1 :])) for i in range(len(size))]
        made = LogicalTensor()
        self.do(
            "dnnl_graph_logical_tensor_init_with_strides", ctypes.byref(made),
            ctypes.c_size_t(number), F32, len(size), dims(size), dims(strides), 0,
        )
        return made

    def add_op(self, graph, kind, inputs, output, flag=None, axis=None):
        number, name = ctypes.c_size_t(output.id), f"op{output.id}".encode()
        op = self.make("dnnl_graph_op_create", number, kind, name)
        one = ctypes.c_size_t(1)
        if flag is not None:
            self.do("dnnl_graph_op_set_attr_bool", op, flag, ctypes.byref(ctypes.c_uint8(1)), one)
        if axis is not None:
            value = ctypes.byref(ctypes.c_int64(axis))
            self.do("dnnl_graph_op_set_attr_s64", op, AXIS, value, one)
        for tensor in inputs:
            self.do("dnnl_graph_op_add_input", op, ctypes.byref(tensor))
        self.do("dnnl_graph_op_add_output", op, ctypes.byref(output))
        self.do("dnnl_graph_add_op", graph, op)

    def partition(self, graph):
        """The one fused piece that the graph is to become."""
        self.do("dnnl_graph_graph_finalize", graph)
        self.do("dnnl_graph_graph_filter", graph, FUSION)
        count = ctypes.c_size_t()
        self.do("dnnl_graph_graph_get_partition_num", graph, ctypes.byref(count))
        if count.value != 1:
            raise RuntimeError(f"not fused: {count.value} pieces")
        made = ctypes.c_void_p()
        self.do("dnnl_graph_graph_get_partitions", graph, count, ctypes.byref(made))
        return made

    def compiled(self, partition, inputs, output):
        compiled = self.make("dnnl_graph_compiled_partition_create", partition)
        many = (ctypes.POINTER(LogicalTensor) * len(inputs))(*map(ctypes.pointer, inputs))
        one = (ctypes.POINTER(LogicalTensor) * 1)(ctypes.pointer(output))
        self.do("dnnl_graph_partition_compile", partition, compiled, ctypes.c_size_t(len(inputs)),
                many, ctypes.c_size_t(1), one, self.engine)
        return compiled

    def bound(self, descriptions, arrays):
        """Tensors over the memory of these arrays."""
        made = [
            self.make("dnnl_graph_tensor_create", ctypes.byref(d), self.engine, blas.pointer(a))
            for d, a in zip(descriptions, arrays)
        ]
        return ctypes.c_size_t(len(made)), (ctypes.c_void_p * len(made))(*(m.value for m in made))

    def prepare(self, shape, inputs, threads):
        self.open_stream()
        out = memory.aligned(inputs["q"].shape)
        n, group = shape.length, shape.q_heads // shape.kv_heads
        rows = (1, shape.kv_heads, group, n)
        q, k, v, scale, mask, scores, scaled, masked, weights, mixed = (
            self.tensor(number, size)
            for number, size in enumerate(
                [(*rows, shape.head_dim)]
                + [(1, shape.kv_heads, 1, n, shape.head_dim)] * 2
                + [(1,), (1, 1, 1, n, n)]
                + [(*rows, n)] * 4
                + [(*rows, shape.head_dim)]
            )
        )
        graph = self.make("dnnl_graph_graph_create", CPU)
        self.add_op(graph, MATMUL, [q, k], scores, flag=TRANSPOSE_B)
        self.add_op(graph, DIVIDE, [scores, scale], scaled)
        if shape.causal:
            self.add_op(graph, ADD, [scaled, mask], masked)
        self.add_op(graph, SOFTMAX, [masked if shape.causal else scaled], weights, axis=-1)
        self.add_op(graph, MATMUL, [weights, v], mixed)

        descriptions = [q, k, scale, v]
        arrays = [inputs["q"], inputs["k"], memory.aligned((1,)), inputs["v"]]
        arrays[2][...] = np.sqrt(shape.head_dim)
        if shape.causal:
            descriptions.insert(3, mask)
            arrays.insert(3, memory.aligned_copy(np.triu(np.full((n, n), -1e30, np.float32), 1)))
        compiled = self.compiled(self.partition(graph), descriptions, mixed)
        run = self.executed(
            "dnnl_graph_compiled_partition_execute", compiled, self.stream,
            *self.bound(descriptions, arrays), *self.bound([mixed], [out]),
        )
        return Call(run, lambda: out, keep=(descriptions, arrays))


PEERS = [Graph(), Matmul()]
