# SPDX-License-Identifier: Apache-2.0
"""All peers, by name. qkv comes first."""

import importlib

MODULES = ("qkv", "pytorch", "onnx_runtime", "openvino_ops", "openvino_state", "onednn", "blas")


def peers():
    return [peer for name in MODULES for peer in importlib.import_module(f"peers.{name}").PEERS]


def peer_named(name):
    return next(peer for peer in peers() if peer.name == name)
