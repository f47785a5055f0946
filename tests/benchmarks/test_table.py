"""The tables, from made-up cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.training.cells import CELLS, PEERS
from benchmarks.training.table import cost_table, machines, replace_between, speed_table


def peer(seed: int, loss: float, form: str = "default", **more: Any) -> dict[str, Any]:
    return {
        "cell": "shakespeare", "seed": seed, "peer": "hf-qwen3", "form": form, "warm": False, "tuned_by_runs": False,
        "wall_seconds": 180.0, "test": {"bits_per_byte": loss}, "parameters": 1_290_000, "tokens_per_second": 4000.0,
        "peak_memory_bytes": 1_000_000_000, "settings": {"batch": 8}, **more,
    }  # fmt: skip


def bimo(seed: int, rung: int, loss: float | None, wall: float) -> dict[str, Any]:
    found = {
        "cell": "shakespeare", "seed": seed, "peer": "bimo", "warm": False,
        "budget_seconds": CELLS["shakespeare"].ladder()[rung], "test": loss and {"bits_per_byte": loss},
        "process_seconds": wall + 4, "peak_memory_bytes": 500_000_000, "settings": {"batch": {"size": 8}},
    }  # fmt: skip
    return (
        found if loss is None else {**found, "wall_seconds": wall, "parameters": 1_230_000, "tokens_per_second": 18e3}
    )


def row(table: str, *words: str) -> str:
    (found,) = [line for line in table.splitlines() if all(word in line for word in words)]
    return found


def test_ratio_is_the_walls_of_the_shortest_run_that_reaches_the_peer() -> None:
    cells = [peer(0, 2.2), bimo(0, 0, None, 0), bimo(0, 1, 2.3, 13.0), bimo(0, 2, 2.15, 18.0), bimo(0, 3, 2.1, 22.0)]
    found = row(cost_table(cells), "Qwen3")
    assert "**0.100**" in found and "≤ 0.1 |" in found and "18.0 s" in found and "22.0 s |" in found
    assert "≤, " not in found, "the rung below falls short, so the figure is exact"
    assert "1.29M / 1.23M" in found


def test_what_was_not_searched_to_the_end_is_a_bound_and_what_is_missing_says_so() -> None:
    table = cost_table([peer(0, 2.2), peer(1, 2.0), bimo(0, 5, 2.1, 36.0), bimo(1, 5, 2.1, 36.0)])
    found = row(table, "Qwen3")
    assert "**0.200**; ≤, 1 of 1 not searched to the end; not reached by 1 more seed(s) so far" in found
    assert "not measured yet" in row(table, "`mix`")


def test_untuned_peers_are_called_so() -> None:
    assert "tuned (not tuned yet)" in row(cost_table([peer(0, 2.2, form="tuned")]), "Qwen3")
    assert "not tuned yet" not in row(cost_table([peer(0, 2.2, form="tuned", tuned_by_runs=True)]), "Qwen3")


def test_processors_are_named_with_their_instructions_for_bfloat16() -> None:
    old = peer(0, 2.2, machine={"processor": "AMD EPYC"})
    amx, plain = ({"processor": "Xeon", "bfloat16": found} for found in (["amx_bf16", "avx512_bf16"], []))
    said = machines([old, peer(1, 2.2, machine=amx), peer(2, 2.2, machine=amx), peer(3, 2.2, machine=plain)])
    assert "1 on AMD EPYC, 2 on Xeon (amx_bf16, avx512_bf16), 1 on Xeon (without bfloat16)" in said


def test_speed_and_memory_stand_beside_their_goals() -> None:
    found = row(speed_table([peer(0, 2.2), bimo(0, 2, 2.1, 18.0)]), "Qwen3")
    assert "**4.50** | ≥ 4" in found and "**0.50** | ≤ 0.6" in found


def test_speed_and_memory_are_medians_of_all_cold_runs_of_all_seeds() -> None:
    speeds = (8e3, 16e3, 20e3)
    runs = [{**bimo(seed, 3, 2.1, 22.0), "tokens_per_second": speed} for seed, speed in enumerate(speeds)]
    others = [bimo(1, 2, None, 9.0), {**bimo(0, 2, 2.1, 18.0), "warm": True}]
    found = row(speed_table([peer(0, 2.2), *others, *runs]), "Qwen3")
    assert "| 16,000 | **4.00** |" in found


def test_the_page_keeps_what_is_outside_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- train: begin -->\nold\n<!-- train: end -->\nafter\n", encoding="utf-8")
    replace_between(page, "train", "new\n")
    assert page.read_text(encoding="utf-8") == "before\n<!-- train: begin -->\nnew\n<!-- train: end -->\nafter\n"
    with pytest.raises(AssertionError, match="no place for gpu"):
        replace_between(page, "gpu", "x")


def test_bimo_is_not_larger_than_any_peer() -> None:
    from benchmarks.peers.nano import nano_of
    from bimo.models import count_parameters, llama

    for cell in CELLS.values():
        shape = cell.llama
        config = llama.Config(
            vocab_size=2048, hidden_size=shape["width"], intermediate_size=shape["mlp_width"],
            num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
            num_key_value_heads=shape["heads"], head_dim=shape["width"] // shape["heads"],
            max_position_embeddings=256, model_type="qwen3", qk_norm=True, tie_word_embeddings=False,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        ours, _ = count_parameters(llama.Model(config))
        theirs = sum(one.numel() for one in nano_of({**cell.shape("nano"), "vocab_size": 2048}).parameters())
        assert ours <= theirs, cell.name
    assert {peer.module for peer in PEERS.values()} == {"nano", "hf", "litgpt"}
