"""Rollouts: of the present weights, rewarded, and the same again after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bimo.generate.engine import Engine
from bimo.generate.native import NativeBackend
from bimo.generate.request import Request, Token
from bimo.generate.sampling import Sampling
from bimo.generate.torch_backend import TorchBackend
from bimo.models import load_model
from bimo.optim import Optimizer, OptimizerConfig
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.loop import Progress, fit
from bimo.tune.examples import example
from bimo.tune.rewarded import PolicyObjective, rollout_loss, token_logprobs
from bimo.tune.rewards import Reward
from bimo.tune.rollout import Answer, Prompt, RolloutConfig, Rollouts, Sampler, greedy_rewards, rewarded


def vowels(completions: Sequence[str]) -> list[float]:
    return [sum(letter in "aeiou" for letter in said) / max(1, len(said)) for said in completions]


REWARDS = [(Reward("vowels", vowels, frozenset({"completions"}), 60.0), 1.0)]


def prompts(tokenizer: Tokenizer, count: int = 5) -> list[Prompt]:
    said = [f"where is {number}" for number in range(count)]
    return [Prompt((tokenizer.eos_id, *tokenizer.encode(text)), text, {"n": n}) for n, text in enumerate(said)]


def make(folder: Path, tokenizer: Tokenizer, **settings: Any) -> tuple[Any, Rollouts]:
    model = load_model(folder)
    config = RolloutConfig(prompts=3, answers=4, longest=6, **settings)
    sampler = Sampler(model, {tokenizer.eos_id}, room=40, together=12)
    return model, Rollouts(model, sampler, prompts(tokenizer), REWARDS, tokenizer, config, length=32, seed=7)


def equal(one: Any, other: Any) -> bool:
    return all(
        torch.equal(a.nan_to_num(9.0), b.nan_to_num(9.0))
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


@pytest.mark.parametrize("updates", [1, 3])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_resumed_rollout_is_the_same(model_folder: Path, tokenizer: Tokenizer, updates: int, at: int) -> None:
    """Between updates the weights move on, and the answers are those of the weights before."""
    model, whole = make(model_folder, tokenizer, updates=updates)
    states, batches, weights = [], [], []
    for _ in range(5):
        states.append(json.loads(json.dumps(whole.state())))
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        batches.append(next(whole))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.05)
    model, resumed = make(model_folder, tokenizer, updates=updates)
    resumed.load_state(states[at])
    for place in range(at, 5):
        model.load_state_dict(weights[place])
        assert equal(next(resumed), batches[place])


def test_an_epoch_asks_every_prompt_once(model_folder: Path, tokenizer: Tokenizer) -> None:
    _, rollouts = make(model_folder, tokenizer)
    asked = [rollouts._prompt(place).row["n"] for place in range(15)]
    assert all(sorted(asked[at : at + 5]) == [0, 1, 2, 3, 4] for at in (0, 5, 10)) and asked[:5] != asked[5:10]


@pytest.mark.parametrize("fused", [False, True])
def test_the_weights_that_answer_are_the_present_ones(model_folder: Path, tokenizer: Tokenizer, fused: bool) -> None:
    model = load_model(model_folder)
    model.fused = fused
    sampler = Sampler(model, {tokenizer.eos_id}, room=40, together=3)
    asked = [one.ids for one in prompts(tokenizer, 3)]
    greedy = Sampling(max_new_tokens=7, temperature=0)
    seen = []
    for _ in range(3):
        answers = sampler(asked, [0, 0, 0], greedy)
        for ids, answer in zip(asked, answers, strict=True):
            said = list(ids)
            for token in answer.ids:
                with torch.no_grad():
                    logits = model(torch.tensor([said]))[0, -1]
                assert logits[token] >= logits.max() - 1e-4
                said.append(token)
        seen.append([answer.ids for answer in answers])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(seen))) * 0.3)
    assert seen[0] != seen[1] != seen[2]


def test_answers_are_as_likely_as_training_finds_them(model_folder: Path, tokenizer: Tokenizer) -> None:
    """What the engine draws from is what the loss differentiates."""
    model = load_model(model_folder)
    sampler = Sampler(model, set(), room=40, together=2)
    engine = Engine(sampler._present())
    asked = prompts(tokenizer, 2)
    sampling = Sampling(max_new_tokens=6, temperature=0.7)
    handles = [engine.submit(Request(one.ids, sampling=sampling, seed=3, logprobs=0)) for one in asked]
    while engine.step():
        pass
    drawn = [[event for event in handle.result() if isinstance(event, Token)] for handle in handles]
    examples = [
        example(list(one.ids), [token.id for token in tokens]) for one, tokens in zip(asked, drawn, strict=True)
    ]
    for values, tokens in zip(token_logprobs(model, examples, 2, 40, 0.7), drawn, strict=True):
        assert values.tolist() == pytest.approx([token.sampled_logprob for token in tokens], abs=1e-3)


def test_the_reward_rises(model_folder: Path, tokenizer: Tokenizer) -> None:
    model, rollouts = make(model_folder, tokenizer)
    sampler = rollouts._sampler
    before = sum(greedy_rewards(sampler, prompts(tokenizer), REWARDS, tokenizer, 6)) / 5
    optimizer = Optimizer(model, OptimizerConfig("adamw", learning_rate=0.01, adamw_learning_rate=0.01))
    curve: list[Mapping[str, float]] = []
    fit(
        model, rollouts, lambda one, batch: rollout_loss(one, batch, PolicyObjective()), optimizer, lambda *_: 1.0,
        [lambda progress: curve.append(progress.metrics)], progress=Progress(steps=40), accumulate=2,
    )  # fmt: skip
    means = [figures["reward"] for figures in curve]
    assert sum(means[-5:]) / 5 > 2 * sum(means[:5]) / 5 and means[-1] > 0.5
    assert sum(greedy_rewards(sampler, prompts(tokenizer), REWARDS, tokenizer, 6)) / 5 > before


def test_rewards_are_weighted_and_see_their_rows(tokenizer: Tokenizer) -> None:
    def number(n: Sequence[int]) -> list[float]:
        return [float(one) for one in n]

    asked = prompts(tokenizer, 3)
    answers = [Answer(tokenizer.encode(text), True) for text in ("a", "the", "月")]
    rewards = [*REWARDS, (Reward("n", number, frozenset({"n"}), 60.0), 0.5)]
    assert rewarded(asked, answers, rewards, tokenizer) == pytest.approx([1.0, 1 / 3 + 0.5, 1.0])


def test_a_model_with_more_than_its_own_weights_answers_by_torch(model_folder: Path) -> None:
    model = load_model(model_folder)
    assert isinstance(Sampler(model, set(), room=40, together=2)._present(), NativeBackend)
    model.model.layers[0].register_parameter("lora_A", torch.nn.Parameter(torch.zeros(3, 2)))
    assert isinstance(Sampler(model, set(), room=40, together=2)._present(), TorchBackend)
