from __future__ import annotations

import itertools
import re

import pytest

from bimo.report.words import PHRASES, Said, clock, duration, translated
from bimo.train.anchor import Anchor
from bimo.train.budget import parse_budget
from bimo.train.config import ModelConfig, TrainConfig
from bimo.train.plan import (
    Plan,
    plan_arithmetic,
    plan_compilation,
    plan_kernels,
    plan_shape,
    plan_steps,
    plan_vocabulary,
)
from bimo.train.probe import Machine

CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.mark.parametrize(("pattern", "chinese"), PHRASES)
def test_a_phrase_is_in_chinese_and_has_a_place_for_each_group(pattern: str, chinese: str) -> None:
    groups = re.compile(pattern).groups
    assert CHINESE.search(chinese)
    assert not re.search("[,;!?]", re.sub(r"\{\d\}", "", chinese)), "Chinese punctuation is full-width"
    assert {int(place) for place in re.findall(r"\{(\d)\}", chinese)} == set(range(groups))


def reasons() -> set[str]:
    """All reasons that the plan gives, over budgets, machines, texts and families."""
    machine = Machine({"float32": 2e11, "bfloat16": 4e11}, {"float32": 1e11, "bfloat16": 3e11})
    found: set[str] = set()
    budgets, families = ("90s", "10m", "5h", "9d", "200k-tokens", "3-epochs", "3-bpb"), ("qwen3", "gpt2")
    for budget, size, family, device in itertools.product(budgets, (2e5, 4e8), families, ("cpu", "cuda", "mps")):
        limit = parse_budget(budget)
        plan = Plan(TrainConfig(budget=budget, device=device, model=ModelConfig(family=family)))  # type: ignore[arg-type]
        plan_arithmetic(plan, machine)
        plan_vocabulary(plan, limit, machine, limit.seconds, int(size))
        anchor = Anchor(2.2, int(size / 3), 3.0, plan.config.tokenizer.vocab_size or 0)
        choice = plan_shape(plan, limit, machine, limit.seconds, anchor)
        plan_kernels(plan)
        plan_compilation(plan, limit, machine, limit.seconds, choice.tokens)
        plan_steps(plan, limit.seconds, 0.1, anchor, choice.most_tokens, 50_000)
        found |= {reason for _, _, reason in plan.reasons}
    assert any("soonest" in reason for reason in found) and any("next to nothing" in reason for reason in found)
    return found


def test_every_reason_of_the_plan_has_its_chinese() -> None:
    assert not {reason for reason in reasons() if not CHINESE.search(translated(reason).zh)}, "add it to PHRASES"


def test_numbers_are_carried_over() -> None:
    event = "step 6: the machine is slower than planned; training is shortened from 47 to 15 steps"
    assert translated(event) == Said(event, "第 6 步：机器比预计的慢，训练由 47 步缩短为 15 步")
    event = "step 7: Training diverged at step 7: the loss is not finite."
    assert translated(event).zh == "第 7 步：训练发散，损失不是有限值"


@pytest.mark.parametrize("sentence", ["", "something else", "unknown suffix {0.__class__}", "{0}", "unknown suffix "])
def test_any_sentence_is_said(sentence: str) -> None:
    assert translated(sentence).en == sentence
    assert "{0}" not in translated(sentence).zh.replace(sentence, "")


@pytest.mark.parametrize(
    ("seconds", "en", "zh"),
    [
        (None, "–", "–"),
        (0.04, "0.0 s", "0.0 秒"),
        (20.34, "20.3 s", "20.3 秒"),
        (59.7, "1 min", "1 分"),
        (200, "3 min 20 s", "3 分 20 秒"),
        (3600, "1 h", "1 小时"),
        (7 * 3600 + 305, "7 h 5 min", "7 小时 5 分"),
    ],
)
def test_durations(seconds: float | None, en: str, zh: str) -> None:
    assert duration(seconds) == (en, zh)


def test_clock() -> None:
    assert [clock(seconds) for seconds in (None, 0, 65.2, 3725)] == ["", "0:00", "1:05", "1:02:05"]
