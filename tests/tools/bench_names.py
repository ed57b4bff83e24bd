#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tools/bench-report understands the name of every benchmark. Usage: bench_names.py SOURCE QKV_BENCH"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(sys.argv[1]) / "tools"))
from report import read  # noqa: E402

listed = subprocess.run([sys.argv[2], "--isa", "scalar", "--benchmark_list_tests"], check=True,
                        capture_output=True, text=True).stdout.splitlines()
names = [line for line in listed if "/" in line]
if not names:
    sys.exit("no benchmarks are listed")
for name in names:
    read.benchmark(Path("list"), {"name": name, "real_time": 1.0, "time_unit": "ns"}, "scalar")
print(f"{len(names)} names")
