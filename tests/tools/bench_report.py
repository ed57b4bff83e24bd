#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/bench-report end to end: what the page and the charts show, and what it says of inputs
that it cannot use. bench_report.py PROGRAM."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

PROGRAM = sys.argv.pop(1)


def benchmark(name, **more):
    return {"name": name, "run_type": "iteration", "real_time": 1234.5, "time_unit": "us",
            "GFLOPS": 170.25, "noisy": 0.0, **more}


ATTENTION = "attention/f32/avx512/h8_q1024_kv1024_d64"
CONTEXT = {"date": "2026-01-02T03:04:05+00:00", "num_cpus": 2, "mhz_per_cpu": 2600,
           "caches": [{"type": "Data", "level": 1, "size": 49152, "num_sharing": 1}],
           "fma_peak": "237.9 GFLOPS on one thread", "memory_read": "30.0 GB/s on one thread",
           "qkv": "0.1.0", "room": "avx512"}
BENCH = {"context": CONTEXT, "benchmarks": [
    benchmark(ATTENTION, pct_peak=71.4),
    benchmark(ATTENTION + "_causal", pct_peak=66.6, noisy=2.0),
    benchmark("attention/f32/avx512/h8_q1000_kv1000_d64", pct_peak=69.25),
    benchmark("attention/exp:poly5/f32/avx512/h8_q1024_kv1024_d64", pct_peak=77.7),
    benchmark("attention/f32/avx512/h8_q1024_kv1024_d80", pct_peak=65.5),
    benchmark("attention/f32/avx512/h8_q1024_kv1024_d64/threads:2", pct_peak=60.0, speedup=1.875),
    benchmark("attention_backward/exp:sleef_u10/f32/avx512/h1_q96_kv96_d64", pct_peak=81.25),
    benchmark("attention_backward/exp:sleef_u10/f32/avx512/h1_q96_kv96_d64/threads:2", speedup=1.5),
    benchmark("learning/f32/avx512/h12_q64_kv64_d32", pct_peak=56.75),
    benchmark("decode/i8/avx512/h32_kvh8_q1_kv4096_d128", pct_roof=84.25, label="roof: arithmetic"),
    benchmark("decode/f16/avx512/h8_q1_kv256_d64/threads:2", pct_roof=77.5, speedup=1.5),
    benchmark("latency/pool_2parts/threads:2", p50=0.5, max=88.25),
    benchmark("project/f32/avx512/m512_k768_n2304_packed", pct_peak=93.75),
    benchmark("project/f32/avx512/m1_k4096_n6144_packed", bytes_per_second=2.7e10, pct_read=89.6,
              pct_peak=4.0, ws_shared=0.0, ws_worker=3072.0),
    benchmark("options/f32/avx512/b2_h4_q384_kv768_d64_alibi", label="alibi <&>", pct_plain=97.5),
    {"name": "softmax/f32/avx512/h8_q64_kv64", "error_occurred": True, "error_message": "no luck"},
]}


def peer(name, **more):
    return {"peer": name, "version": "9.8", "state": "timed", "reason": "", "median": 2e-3,
            "percent": 55.5, "ratio": 1.375, "low": 1.25, "high": 1.5, "error": 3e-7,
            "memory": 1 << 20, "noisy": 0, **more}


PEERS = {"machine": {"cpu": "A Fine CPU", "rounds": 15, "date": "2026-01-02", "system": "Linux 6"},
         "results": [{"shape": "h8 d64 causal 512", "family": "h8 d64 causal", "stage": "attention",
                      "length": 512, "threads": 1, "flops": 1, "rows": [
                          peer("qkv", ratio=1.0, low=1.0, high=1.0), peer("onnxruntime MHA"),
                          peer("oneDNN graph sdpa", ratio=1.625),
                          {"peer": "openvino sdpa", "state": "unsupported", "reason": "too old",
                           "error": None, "memory": None}]},
                     {"shape": "learning gqa 32:8 d128 causal 512", "family": "learning gqa",
                      "stage": "learning", "length": 512, "threads": 1, "flops": 1, "rows": [
                          peer("qkv", ratio=1.0, low=1.0, high=1.0),
                          peer("pytorch autograd flash", ratio=2.75, low=2.5, high=3.0)]}]}


class Report(unittest.TestCase):
    def setUp(self):
        self.place = Path(tempfile.mkdtemp(prefix="qkv-report."))
        self.addCleanup(shutil.rmtree, self.place)

    def run_on(self, *inputs, options=()):
        paths = []
        for number, said in enumerate(inputs):
            paths.append(self.place / f"{number}.json")
            paths[-1].write_text(said if isinstance(said, str) else json.dumps(said))
        command = [PROGRAM, *map(str, paths), "--out", str(self.place / "page.html"), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def page(self, *inputs):
        done = self.run_on(*inputs)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return (self.place / "page.html").read_text(encoding="utf-8")

    def refused(self, why, *inputs):
        done = self.run_on(*inputs)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, why)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertFalse((self.place / "page.html").exists())

    def test_figures_appear(self):
        page = self.page(BENCH, PEERS)
        for said in ("71.4 %", "~67", "69.2 %", "h8, 1000, d64", "h8, 1024, d64, 2 threads", "93.8 %",
                     "188 %", "81.2 %", "56.8 %", "gradients h1, 96, d64, 2 threads", "0.50 µs", "88.25 µs",
                     "h32:8, 1 x 4096, d128, i8", "84.2 % of the roof", "1.50 times one thread", "polynomial of degree 5", "0 B + 3.0 KiB",
                     "512 x 768 x 2304, W packed", "90 %", "alibi &lt;&amp;&gt;", "no luck",
                     "A Fine CPU", "237.9 GFLOPS on one thread", "1.38 [1.25, 1.50]", "2.75 [2.50, 3.00]", "too old",
                     "L1 data 48.0 KiB", "3.0e-07", "limit with the exponential counted: 82.6 %",
                     "How to repeat it", "prefers-color-scheme: dark"):
            self.assertIn(said, page)

    def test_page_needs_nothing_else(self):
        page = self.page(BENCH, PEERS)
        self.assertEqual(re.findall(r"<(?:link|script|img|iframe|object)\b", page), [])
        self.assertEqual(re.findall(r"url\(|@import|\bsrc=|https?://", page), [])
        self.assertTrue(all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page)))

    def test_drawings_are_sound(self):
        page = self.page(BENCH, PEERS)
        drawings = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
        self.assertEqual(len(drawings), 13)
        for drawing in drawings:
            root = ElementTree.fromstring(drawing)
            width, height = map(float, root.get("viewBox").split()[2:])
            for text in root.iter("text"):
                self.assertTrue(0 <= float(text.get("x")) <= width, text.text)
                self.assertTrue(0 < float(text.get("y")) <= height, text.text)

    def test_places_follow_values(self):
        """The bar of twice the percentage is twice as long."""
        half = json.loads(json.dumps(BENCH))
        half["benchmarks"][2]["pct_peak"] = 40.0
        half["benchmarks"][4]["pct_peak"] = 80.0
        widths = {}
        for group in re.findall(r"<g><title>.*?</g>", self.page(half)):
            root = ElementTree.fromstring(group)
            widths[root.findtext("title")] = float(root.find("rect").get("width"))
        self.assertAlmostEqual(2 * widths["h8_q1000_kv1000_d64: 40.0 % of peak"],
                               widths["h8_q1024_kv1024_d80: 80.0 % of peak"], delta=0.01)

    def test_one_input_is_enough(self):
        self.assertNotIn('id="peers"', self.page(BENCH))
        self.assertIn('id="peers"', self.page(PEERS))

    def test_missing_data(self):
        bare = {"benchmarks": [{"name": "mix/f32/neon/h1_q8_kv8_d8", "real_time": 1.0,
                                "time_unit": "ns"}]}
        self.assertIn("not recorded", self.page(bare))
        lone = {"results": [{**PEERS["results"][0], "rows": [PEERS["results"][0]["rows"][0]]}]}
        self.assertIn("no peer was measured", self.page(lone))

    def test_ratios_off_the_scale(self):
        """Very slow, very fast, none at all: everything stays inside the drawing."""
        for ratio in (1e-6, 0.3, 5000.0, 0.0, None):
            row = peer("OpenBLAS sgemm", ratio=ratio, low=ratio, high=ratio)
            page = self.page({"results": [{**PEERS["results"][0], "rows": [peer("qkv"), row]}]})
            for drawing in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
                for mark in ElementTree.fromstring(drawing).iter("circle"):
                    self.assertTrue(0 < float(mark.get("cx")) < 920, ratio)

    def test_later_file_counts(self):
        later = json.loads(json.dumps(BENCH))
        later["benchmarks"][0]["pct_peak"] = 12.34
        page = self.page(BENCH, later)
        self.assertIn("12.3 %", page)
        self.assertNotIn("71.4 %", page)

    def test_charts_stand_alone(self):
        done = self.run_on(BENCH, PEERS, options=["--charts", str(self.place / "charts")])
        for name in ("peak-avx512", "peak-avx512-poly5", "shapes-avx512", "ratio-1",
                     "gradients-1"):
            text = (self.place / "charts" / f"{name}.svg").read_text(encoding="utf-8")
            self.assertEqual(ElementTree.fromstring(text).tag, "{http://www.w3.org/2000/svg}svg")
            self.assertNotIn("var(", text)
        if shutil.which("rsvg-convert"):
            self.assertEqual(done.returncode, 0, done.stderr)
            png = (self.place / "charts" / "ratio-1.png").read_bytes()
            self.assertTrue(png.startswith(b"\x89PNG"))
        else:
            self.assertEqual(done.returncode, 1)
            self.assertIn("tools/install report", done.stderr)

    def test_wrong_inputs(self):
        self.refused("is not JSON", "{")
        self.refused("is not JSON", "")
        self.refused("neither the JSON", "[]")
        self.refused("neither the JSON", {"something": 1})
        self.refused("holds no benchmarks", {"benchmarks": []})
        self.refused("holds no results", {"results": []})
        self.refused("is called 'fast'", {"benchmarks": [benchmark("fast")]})
        self.refused("is called None", {"benchmarks": [7]})
        self.refused("is called 'a/b'", {"benchmarks": [benchmark("a/b")]})
        self.refused("has no time", {"benchmarks": [benchmark(ATTENTION, real_time=None)]})
        self.refused("has no time", {"benchmarks": [benchmark(ATTENTION, time_unit="days")]})
        self.refused("a result has no shape", {"results": [{}]})
        self.refused("has no rows", {"results": [{**PEERS["results"][0], "rows": 3}]})
        for row, why in (({"peer": "x"}, "without its peer's name"),
                         (peer("x", median=None), "has no median"),
                         (peer("x", ratio="fast"), "the ratio of x is no number")):
            self.refused(why, {"results": [{**PEERS["results"][0], "rows": [row]}]})

    def test_missing_files(self):
        for path, why in ((self.place / "none.json", "cannot be read"),
                          (self.place, "holds no JSON file")):
            done = subprocess.run([PROGRAM, path, "--out", self.place / "page.html"],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)


if __name__ == "__main__":
    unittest.main()
