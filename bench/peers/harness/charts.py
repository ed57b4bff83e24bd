# SPDX-License-Identifier: Apache-2.0
"""The charts."""


def draw(machine, results, folder):
    pass
