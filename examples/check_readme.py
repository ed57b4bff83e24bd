# SPDX-License-Identifier: Apache-2.0
"""Checks that the programs README.md shows are the examples: the first is examples/embed.c, the second
some lines of examples/decode_loop.c. check_readme.py README.md embed.c decode_loop.c"""
import pathlib
import sys
import textwrap

readme, embed, decode_loop = (pathlib.Path(name).read_text() for name in sys.argv[1:4])
first, second = (shown.split("```", 1)[0] for shown in readme.split("```c\n")[1:])
if first != embed.split("\n\n", 1)[1]:
    sys.exit("README.md does not show examples/embed.c as it is")
if not second or textwrap.indent(second, "    ") not in decode_loop:
    sys.exit("README.md shows what is not in examples/decode_loop.c")
