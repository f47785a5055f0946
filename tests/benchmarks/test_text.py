import itertools
import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import planted_copies
from benchmarks.planted_copies import Sample, score, shingles
from benchmarks.text import CELLS, parts
from benchmarks.texts.cells import FULL, QUICK, RESULTS, TINY
from benchmarks.texts.labels import _by_language, in_script, is_prose, is_translated
from benchmarks.texts.material import pieces, shuffled
from benchmarks.texts.processes import descendants, resident_bytes
from benchmarks.texts.table import effect_table, memory_table, peer_table, pii_table, speed_table, tokens_table

WORDS = [f"word{number}" for number in range(300)]


def test_shuffled_sentences_make_new_documents_of_the_same_words() -> None:
    sentences = [f"Sentence number {number} says {number * 7} and more." for number in range(200)]
    originals = [" ".join(sentences[at : at + 20]) for at in range(0, 200, 20)]
    made = list(itertools.islice(shuffled(iter(originals), seed=1), 30))
    assert made == list(itertools.islice(shuffled(iter(originals), seed=1), 30))
    assert len(set(made)) == 30 and not set(made) & set(originals)
    first_round = " ".join(made).replace("\n\n", " ")
    assert all(sentence in first_round for sentence in sentences)
    assert all(8 <= text.count(".") <= 40 for text in made[:3])


def test_pieces_of_a_book_are_the_whole_book() -> None:
    text = "\n\n".join(f"Paragraph {number}." for number in range(50))
    found = list(pieces(text, 100))
    assert "\n\n".join(found) == text and len(found) > 5 and all(len(piece) < 140 for piece in found)


def test_all_processes_of_a_tree_are_found() -> None:
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while len(found := list(descendants(process.pid))) < 2 and process.poll() is None:
            pass
        assert found[0] == process.pid and found[1] != process.pid
        assert all(0 < resident_bytes(pid) < 1e9 for pid in found)  # one may just have begun
        process.communicate(b"\n")
    assert resident_bytes(process.pid) == 0
    assert resident_bytes(os.getpid()) > 1e7


def test_copies_count_as_found_when_they_share_the_cluster_of_their_original() -> None:
    text = " ".join(WORDS)
    near = text.replace("word150 ", "other ")
    samples = [Sample(text, -1, ""), Sample(" ".join(reversed(WORDS)), -1, ""), Sample(near, 0, "1% replaced")]
    found = score(samples, [0, -1, 0], by_character=False)
    assert found["by_similarity"]["0.85"] == [1, 1] and found["by_edit"]["1% replaced"] == [1, 1]
    assert (found["clustered"], found["unlike"]) == (2, 0)
    missed = score(samples, [1, 1, -1], by_character=False)
    assert missed["by_similarity"]["0.85"] == [0, 1] and (missed["clustered"], missed["unlike"]) == (2, 2)


def test_bimo_finds_a_planted_copy() -> None:
    text = " ".join(WORDS)
    assert planted_copies.bimo([text, " ".join(reversed(WORDS)), text.upper(), text.replace("word9 ", "x ")]) == [
        *(0, -1, 0, 0)
    ]


def test_chinese_characters_are_words() -> None:
    assert shingles("今天，天气好 ok", by_character=True) == {
        ("今", "天", "天", "气", "好"),
        ("天", "天", "气", "好", "ok"),
    }


@pytest.mark.parametrize("edits", [planted_copies.ENGLISH, planted_copies.CHINESE])
def test_every_edit_changes_a_text(edits: dict[str, planted_copies.Edit]) -> None:
    chinese = edits is planted_copies.CHINESE
    text = "今天天气很好，我们去公园。" * 20 if chinese else "It was a fine day, and we went out. " * 20
    words = list("山水花鸟风月" * 20) if chinese else WORDS
    made = planted_copies._planted([text], [0], words, edits, 1, seed=0)
    assert len(made) == 2 and made[1].original == 0 and made[1].text != text
    for name, edit in edits.items():
        assert edit(text, planted_copies.random.Random(3), words) != text, name


def test_languages_are_counted_right_and_wrong() -> None:
    samples = [
        {"text": "", "language": language, "form": form} for language in ("en", "zh") for form in ("short", "whole")
    ]
    counts = _by_language(samples, ["en", "zh", "zh", "fr"])
    assert counts["en"] == {"short": 1, "short right": 1, "whole": 1, "whole right": 0}
    assert counts["zh"] == {"short": 1, "short right": 1, "whole": 1, "whole right": 0, "wrong": 1}


@pytest.mark.parametrize(
    ("text", "language", "right"),
    [
        ("Wählen Sie eine Zelle in der ersten Spalte.", "de", True),
        ("选择要应用到所选单元格的格式。", "zh", True),
        ("選択したセルに適用する書式を選びます。", "ja", True),
        ("Выберите ячейку в первом столбце этой таблицы.", "ru", True),
        ("Hold down the key and press another one.", "zh", False),  # not translated
        ("This is a long sentence in Latin letters.", "ru", False),
        ('=IMSINH(2)returns "3.62" as a string for you.', "en", False),
        ("mode: Eine Zahl, die das Verhalten der Funktion festlegt.", "de", False),
        ("Extras - Optionen - Sprachen und Gebietsschemata - Allgemein", "de", False),
        ("单元格。", "zh", False),
    ],
)
def test_only_prose_is_a_sample_of_a_language(text: str, language: str, right: bool) -> None:
    assert is_prose(text, language) == right


def test_a_beginning_in_other_letters_is_no_sample() -> None:
    assert in_script("LibreOff", "fr") and not in_script("COM.中文", "zh") and not in_script("Microsof", "ja")


def test_what_stands_in_english_on_the_same_page_is_not_translated() -> None:
    english = {"choose", "the", "format", "of", "libreoffice", "cell", "cells"}
    assert not is_translated("Choose the format of these cells.", english)
    assert is_translated("Wählen Sie das Format in LibreOffice.", english)
    assert not is_translated("LibreOffice", english)


def test_cells_have_results_of_their_own() -> None:
    names = [name for cell in CELLS for name in parts(cell, FULL)]
    assert len(names) == len(set(names)) and {"peer", "memory", "tokens", "effect-2", "labels-pii"} <= set(names)
    paths = {scale.result(name) for scale in (FULL, QUICK, TINY) for name in names}
    assert len(paths) == 3 * len(names)
    assert TINY.result("peer").parent != RESULTS == FULL.result("peer").parent


def _run(speed: float, **further: Any) -> dict[str, Any]:
    return {
        "megabytes_per_second": speed, "documents_in": 10, "documents_kept": 8, "tree_bytes": 3e8, **further,
    }  # fmt: skip


def test_tables_show_medians_ratios_and_goals() -> None:
    cell = {"text": {"bytes": 2e8, "documents": 10}, "runs": [_run(20), _run(30), _run(27)]}
    assert "| 8 of 10 | **27.00** (20.00 to 30.00) | ≥ 25 |" in speed_table({"jsonl-exact": cell, "html-default": None})
    assert "HTML | everything that is on by default | not measured yet" in speed_table({"html-default": None})
    peer = {
        "text": {"documents": 10, "bytes": 2e8}, "versions": {"datatrove": "9.9"},
        "bimo": {"megabytes_per_second": 30, "runs": [_run(30)]},
        "datatrove": {"megabytes_per_second": 1.5, "runs": [_run(1.5)]},
    }  # fmt: skip
    assert "| 8 of 10 | **30.00** | 0.30 GB | **20.0** | ≥ 20 |" in peer_table(peer)
    assert peer_table(None) == "Against datatrove: not measured yet.\n"


def test_memory_is_projected_on_a_line_where_there_is_enough_to_do_so() -> None:
    runs = [
        {
            "input_bytes": size,
            "documents_in": int(size / 1000),
            "tree_bytes": 5e8 + size / 40,
            "largest_process_bytes": 3e8,
        }
        for size in (1e9, 4e9)
    ]
    assert "| 20 GB, projected | 20,000,000 | **1.00 GB** | 0.30 GB | ≤ 2 GB |" in memory_table({"runs": runs})
    assert "projected" not in memory_table({"runs": [{**run, "input_bytes": 1e6} for run in runs]})


def test_speeds_of_the_library_stand_beside_ours() -> None:
    seconds = {"encode bimo": [2.0], "encode library": [1.0], "train bimo": [1.0, 1.0], "train library": [1.5, 1.5]}
    cell = {"bytes": 10e6, "version": "1", **{str(size): {"seconds": seconds} for size in (2048, 16384)}}
    table = tokens_table(cell)
    assert "| 2,048 | **5.00** | **10.00** | **0.50** | ≥ 1 |" in table
    assert (
        "| learn the merges | 16,384 | **10.00** (10.00 to 10.00) | **6.67** (6.67 to 6.67) | **1.50** | ≥ 1 |" in table
    )


def test_what_a_peer_does_not_look_for_is_no_miss() -> None:
    found = {"planted": 10, "found": 8, "touched": 9, "wrong": 1, "elsewhere": 2}
    finders = {
        "bimo": {"kinds": {"email": found, "secret": found}, "megabytes_per_second": 9},
        "presidio": {"kinds": {"email": {**found, "touched": 5, "wrong": 5}, "secret": {"planted": 10}},
                     "megabytes_per_second": 0.5},
    }  # fmt: skip
    table = pii_table({"finders": finders})
    assert "| email | 10 | 0.900 / 0.900 / 2 | 0.500 / 0.500 / 2 |" in table
    assert "| secret | 10 | 0.900 / 0.900 / 2 | not looked for |" in table


def test_the_effect_is_paired_by_seed() -> None:
    cells = [
        {
            "seed": seed, "budget": "3m", "text": {"taken": {"raw": {"bytes": 20e6}}},
            "raw": {"held-out": 2.0 + seed, "other": 3.0}, "cleaned": {"held-out": 1.8 + seed, "other": 3.0},
        }
        for seed in (0, 1, 2)
    ]  # fmt: skip
    table = effect_table([*cells, None])
    assert (
        "| 0, 1, 2 | **3.000** (2.000 to 4.000) | **2.800** (1.800 to 3.800) | **-6.7%** (-10.0% to -5.0%) |" in table
    )
    assert "`--no-doctor`" in table
