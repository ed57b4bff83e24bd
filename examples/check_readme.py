# SPDX-License-Identifier: Apache-2.0
"""Checks that the program README.md shows is examples/embed.c: check_readme.py README.md embed.c"""
import pathlib
import sys

readme, program = (pathlib.Path(name).read_text() for name in sys.argv[1:3])
shown = readme.split("```c\n", 1)[1].split("```", 1)[0]
if shown != program.split("\n\n", 1)[1]:
    sys.exit("README.md does not show examples/embed.c as it is")
