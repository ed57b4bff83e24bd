#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks every house rule on purpose, one at a time, and expects house.py to say so."""

import os
import sys
import tempfile

import house

HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n/* What this file is. */\n"
VEC = HEAD + '#ifndef __F__\n#error "flags"\n#endif\nstatic inline int f(int x)\n{\n    return g(x);\n}\n'

# A small tree that keeps every rule.
SOUND = {
    "src/core/isa.def": HEAD + "ROOM(scalar, SCALAR, 1, 1, 0)\nROOM(avx2, AVX2, 1, 1, 0)\n",
    "src/core/config.h": HEAD + "#if !defined(QKV_X86_64)\n#error\n#endif\n",
    "src/core/cpu_x86.c": HEAD + "#if QKV_X86_64\n#include <immintrin.h>\n#endif\n",
    "src/core/plan.c": HEAD + "/* _mm256_add_ps is not code here */\nint f(void)\n{\n    return 0;\n}\n",
    "src/tmpl/softmax.h": HEAD + "vf x = vf_load(p);\nstruct row {\n    float m;\n};\n",
    "src/scalar/vec.h": VEC,
    "src/avx2/vec.h": VEC,
    "src/scalar/mix.c": HEAD,
    "src/avx2/mix.c": HEAD + "__m256 x;\n",
    "tools/run": "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n",
}

# rule, file, its new text (None: removed)
BREAKS = [
    ("licence", "src/core/plan.c", "/* A file. */\n/* Another. */\n"),
    ("licence", "tools/run", "#!/bin/sh\necho\n"),
    ("said", "src/core/plan.c", "/* SPDX-License-Identifier: Apache-2.0 */\nint x;\n"),
    ("intrinsics", "src/core/plan.c", HEAD + "x = _mm256_add_ps(x, y);\n"),
    ("intrinsics", "src/core/plan.c", HEAD + "#include <arm_neon.h>\n"),
    ("intrinsics", "src/core/plan.c", HEAD + "__asm__ volatile(\"\");\n"),
    ("intrinsics", "src/tmpl/softmax.h", HEAD + "x = vaddq_f32(x, y);\n"),
    ("intrinsics", "src/tmpl/softmax.h", HEAD + "float32x4_t x;\n"),
    ("intrinsics", "src/tmpl/softmax.h", HEAD + "__m512 x;\n"),
    ("conditions", "src/core/plan.c", HEAD + "#ifdef __AVX2__\n#endif\n"),
    ("conditions", "src/tmpl/softmax.h", HEAD + "#if QKV_X86_64\n#endif\n"),
    ("conditions", "src/core/plan.c", HEAD + "#if QKV_ROOM_AVX2\n#endif\n"),
    ("conditions", "src/tmpl/softmax.h", HEAD + "# elif defined(__ARM_NEON)\n"),
    ("guard", "src/avx2/vec.h", VEC.replace("#error", "#warning")),
    ("inline", "src/avx2/vec.h", VEC.replace("static inline int", "int")),
    ("inline", "src/avx2/vec.h", VEC.replace("static inline int", "inline int")),
    ("inline", "src/avx2/vec.h", VEC.replace("static inline int", "static int")),
    ("furniture", "src/avx2/mix.c", None),
    ("furniture", "src/avx2/extra.c", HEAD),
    ("sizeless", "src/tmpl/softmax.h", HEAD + "vf x[4];\n"),
    ("sizeless", "src/tmpl/softmax.h", HEAD + "struct row { vf m; };\n"),
    ("sizeless", "src/tmpl/softmax.h", HEAD + "struct row {\n    int n;\n    vm keep;\n};\n"),
    ("leftovers", "src/core/plan.c", HEAD + "#if 0\n#endif\n"),
    ("leftovers", "tools/run", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n# TODO\n"),
    ("length", "src/core/plan.c", HEAD + "\n" * 500),
]


def broken(tree):
    """The rules that a tree breaks."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in tree.items():
            if text is None:
                continue
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        return {rule for rule, _ in house.broken(root)}


def main():
    wrong = 0
    if broken(SOUND):
        print(f"the sound tree breaks {broken(SOUND)}")
        wrong += 1
    for rule, path, text in BREAKS:
        found = broken({**SOUND, path: text})
        if found != {"rule_" + rule}:
            print(f"{rule}: {path!r} with {text!r}: found {found or 'nothing'}")
            wrong += 1
    untried = {rule.__name__ for rule in house.RULES} - {"rule_" + rule for rule, _, _ in BREAKS}
    if untried:
        print(f"never broken: {untried}")
        wrong += 1
    print(f"{len(BREAKS)} breaks tried, {wrong} not seen")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
