"""The benchmark: what it times, in which order, and that it tells when two ways do not generate the same."""

import json
import sys

from scripts import benchmark
from scripts.benchmarks import generation, measuring
from scripts.benchmarks.generation import Speed, ratio_table, speed_table, speeds
from scripts.benchmarks.probing import Probing, probing_table


def test_ways_are_warmed_up_then_timed_in_turn_each_from_an_empty_cache(monkeypatch):
    calls, clock = [], [0.0]
    monkeypatch.setattr(measuring, "perf_counter", lambda: clock[0])

    def way(name, first, then):
        def answer():
            clock[0] += then if name in calls else first
            calls.append(name)
            return ((("q", sample), (1, 2, 3)) for sample in range(2))

        return answer

    def forget():
        calls.append("forget")
        clock[0] += 100
        return True

    slow, fast = speeds({"slow": way("slow", 60, 3), "fast": way("fast", 60, 1)}, 2, 7.0, forget)
    assert calls == ["forget", "slow", "forget", "fast"] * 3
    assert (slow.rates, slow.start) == ([2.0, 2.0], 7.0)
    assert (fast.rates, fast.start) == ([6.0, 6.0], None)


def test_other_tokens_are_counted_among_the_responses_that_both_ways_made():
    first = Speed("first", rates=[1.0], answers={("q", 0): (1, 2), ("q", 1): (1, 2), ("r", 0): (5,)})
    same = Speed("same", rates=[1.0], answers={("q", 1): (1, 2)})
    other = Speed("other", rates=[1.0], answers={("q", 0): (1, 2), ("q", 1): (1, 3)})
    assert "NOT" not in speed_table([first, same], "").note
    table = speed_table([first, same, other], "")
    assert [row[1:4] for row in table.rows] == [(3, 5, 0), (1, 2, 0), (2, 4, 1)]
    assert "NOT" in table.note


def test_ratios_are_of_the_best_and_of_the_median_speeds():
    ways = [Speed(generation.EVALUATION, rates=[50.0, 90.0, 60.0]), Speed(generation.RAW, rates=[100.0, 80.0, 75.0])]
    assert ratio_table(ways).rows == ((generation.EVALUATION, generation.RAW, 0.9, 0.75, 0.95),)


def test_transformers_alone_is_measured_on_the_embedded_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "find_spec", lambda name: None)
    flags = ["--n_questions", 3, "--max_length", 12, "--repeats", 2, "--output", tmp_path]
    flags += ["--parts", "generation", "probing"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, flags)])
    benchmark.main()
    found = json.loads((tmp_path / "benchmark.json").read_text())
    told, _, probed = found["tables"]
    batched, alone = told["rows"]
    assert (batched["way"], batched["responses"], batched["tokens"]) == (generation.BATCHED, 6, 72)
    assert (alone["way"], alone["responses"], alone["responses unlike the first way's"]) == (generation.ALONE, 3, 0)
    for part, ways in (
        ("generation", [generation.BATCHED, generation.ALONE]),
        ("probing", ["hf: generate", "hf: probe"]),
    ):
        assert {way: len(repeats) for way, repeats in found["repeats"][part].items()} == dict.fromkeys(ways, 2)
        assert (tmp_path / f"benchmark.{part}.png").read_bytes().startswith(b"\x89PNG")
    (row,) = probed["rows"]
    assert (row["engine"], row["chains"], row["tokens generated"], row["from the cache, %"]) == ("hf", 6, 72, None)
    assert row["forks"] == 6 * 3, "after 0, 8 and 12 tokens, as no thinking is over by then"
    out = capsys.readouterr().out
    assert "vLLM is not installed" in out and f"| {generation.BATCHED} | 6 | 72 | 0 |" in out


def test_probing_is_told_as_a_share_of_generating():
    one = Probing("vllm", 5, 100, 20, 700, generate=[2.0, 1.0, 3.0], probe=[1.5, 1.5, 3.0], cached=0.75)
    assert probing_table([one]).rows == (("vllm", 5, 100, 20, 700, 1.5, 0.75, 0.75),)


def test_one_part_alone_is_measured(tmp_path, monkeypatch):
    flags = ["--parts", "probing", "--engine", "hf", "--n_questions", 1, "--n_samples", 1, "--max_length", 8]
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, flags), "--repeats", "1", "--output", str(tmp_path)])
    benchmark.main()
    (table,) = json.loads((tmp_path / "benchmark.json").read_text())["tables"]
    assert table["name"] == "probing" and not (tmp_path / "benchmark.generation.png").exists()
