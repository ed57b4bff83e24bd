# SPDX-License-Identifier: Apache-2.0
"""The comparison itself: shapes, judge, processes, rounds, table and charts."""
