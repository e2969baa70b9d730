"""The benchmarks: their rivals compute the same scan, their reports carry ratios."""

from __future__ import annotations

import json
import sys
from importlib import import_module

import pytest
import torch
from scan_inputs import random_inputs, value_and_gradients, worst_error

from openus_model.bench import BENCHMARKS, BenchReport, Row, bench
from openus_model.bench import scan as scan_bench
from openus_model.bench import step as step_bench
from openus_model.bench import stream as stream_bench
from openus_model.bench.loops import LoopScan
from openus_model.errors import UsageError


@pytest.mark.parametrize("time_first", [False, True])
def test_a_rival_computes_the_same_scan(time_first):
    tensors = random_inputs(1, channels=4, length=19)
    got = value_and_gradients(tensors, lambda *x: LoopScan.apply(*x[:7], time_first))
    assert worst_error(got, value_and_gradients(tensors, "reference")) < 1e-12


def test_the_scan_benchmark_names_every_rival_and_restores_the_threads():
    before = torch.get_num_threads()
    report = scan_bench.run([scan_bench.Layer(length=32, channels=8, count=2)], repeats=1)
    assert [row.baseline for row in report.rows] == list(scan_bench.RIVALS)
    assert all(row.ratio > 0 for row in report.rows)
    assert torch.get_num_threads() == before


def test_the_layers_are_those_of_vmamba_small():
    assert sum(layer.count for layer in scan_bench.VMAMBA_SMALL) == 2 + 2 + 15 + 2


def test_the_step_benchmark_compares_with_the_reference_scan():
    report = step_bench.run("vmamba_nano", image_px=64, batch=1, repeats=1)
    assert report.rows[0].baseline == "same network, reference scan"
    assert json.loads(json.dumps(report.to_json()))["rows"][0]["ratio"] == pytest.approx(report.rows[0].ratio)


def test_the_stream_benchmark_measures_against_the_rival_and_the_floor():
    pytest.importorskip("PIL")
    rival, floor = stream_bench.run(2, repeats=1).rows
    assert rival.unit == floor.unit == "images/s"
    assert rival.baseline.startswith("PIL") and rival.ratio > 1
    assert 0 < floor.ratio <= 1


def test_without_pillow_the_stream_benchmark_says_what_it_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    report = stream_bench.run(2, repeats=1)
    assert [row.baseline for row in report.rows] == ["decode alone (floor)"]
    assert "pip install pillow" in report.to_text()


def test_every_benchmark_has_its_module():
    assert all(callable(import_module(f"openus_model.bench.{what}").run) for what in BENCHMARKS)


def test_a_ratio_says_how_many_times_better_in_either_direction():
    seconds = Row(name="a", value=2.0, unit="s", baseline="b", baseline_value=6.0, wanted=1.4)
    rate = Row(name="a", value=6.0, unit="images/s", baseline="b", baseline_value=2.0)
    assert seconds.ratio == rate.ratio == 3
    text = BenchReport(what="x", rows=(seconds, rate), facts={"threads": 1}).to_text()
    assert "3.00x  >= 1.4x" in text and text.endswith("threads: 1")


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(UsageError, match="expected scan, step, stream"):
        bench("speed")
