"""Answers that the policy gives as it is now, rewarded: the batches that reinforcement learns from.

Everything is drawn from the seed, the rollout's number and the weights, so that a resumed run draws what an
uninterrupted one would have drawn.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bimo.device import seed_for
from bimo.errors import DataError
from bimo.generate.backend import PAGE, Backend
from bimo.generate.engine import Engine
from bimo.generate.native import NativeBackend, is_plain, page_bytes
from bimo.generate.request import Request, Token
from bimo.generate.sampling import Sampling
from bimo.generate.torch_backend import TorchBackend
from bimo.models import kernels
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune import policy
from bimo.tune.examples import Example, example
from bimo.tune.packing import pack
from bimo.tune.rewarded import Drawn, RolloutBatch, rollout_batch, token_logprobs
from bimo.tune.rewards import Reward

MOST_PAGE_BYTES = 1 << 30  # of keys and values: beyond it, answers wait for each other
MOST_RUNNING = 128  # answers computed together


@dataclass(frozen=True)
class Prompt:
    """What is asked.

    Attributes:
        ids: as the model sees it.
        said: as a reward function sees it: a text, or messages.
        row: the row of the data that it is from.
    """

    ids: tuple[int, ...]
    said: Any
    row: Mapping[str, Any]


@dataclass(frozen=True)
class RolloutConfig:
    """How answers are drawn, and what becomes of their rewards.

    Attributes:
        prompts: of one rollout.
        answers: to each of them.
        longest: tokens of an answer.
        temperature: of the draws; 0 in :func:`greedy_rewards` only.
        updates: steps that each rollout is learned from.
        scaling, average: see :mod:`bimo.tune.policy`.
    """

    prompts: int = 8
    answers: int = 8
    longest: int = 64
    temperature: float = 1.0
    updates: int = 1
    scaling: policy.Scaling = "group"
    average: policy.Average = "answers"


@dataclass(frozen=True)
class Answer:
    """What was drawn: its tokens, the end token included where ``finished``."""

    ids: list[int]
    finished: bool


class Sampler:
    """Continues prompts with the weights that a model has at the time.

    Args:
        ends: tokens that end an answer.
        room: positions of the longest prompt with its answer.
        together: answers that are wanted at once.
    """

    def __init__(self, model: Any, ends: Collection[int], *, room: int, together: int) -> None:
        self._model, self._ends, self._together = model, frozenset(ends), min(together, MOST_RUNNING)
        self._pages = -(-room // PAGE) * self._together
        self._backend: Backend | None = None

    def __call__(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Answer]:
        """One answer to each prompt; each depends on its prompt, its seed and the weights alone."""
        with _evaluating(self._model):
            # A new engine: what an old one has computed is of other weights.
            engine = Engine(self._present(), max_running=self._together, max_waiting=len(prompts), chunk=1024)
            handles = [
                engine.submit(Request(prompt, sampling=sampling, seed=seed, eos_ids=self._ends))
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            while engine.step():
                pass
        answers = []
        for handle in handles:
            tokens = [event for event in handle.result() if isinstance(event, Token)]
            answers.append(Answer([token.id for token in tokens], tokens[-1].finish_reason == "stop"))
        return answers

    def _present(self) -> Backend:
        """What computes the weights as they are: torch reads the model's own, the C backend has a copy."""
        weight = self._model.output_weight
        if isinstance(self._backend, NativeBackend):
            self._backend.refresh(self._model)
        elif self._backend is None and kernels.usable(weight.device) and is_plain(self._model):
            dtype = "bfloat16" if self._model.compute_dtype == torch.bfloat16 else "float32"
            most = MOST_PAGE_BYTES // page_bytes(self._model.config, dtype)
            self._backend = NativeBackend(self._model, pages=max(1, min(self._pages, most)), dtype=dtype)
        elif self._backend is None:
            self._backend = TorchBackend(self._model, kv_bytes=MOST_PAGE_BYTES, sequences=self._together)
        return self._backend


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


class Rollouts:
    """Endless batches, each of the answers to some prompts; in an epoch every prompt is asked once.

    Args:
        model: the policy; its weights at the time of each rollout are what answers.
        reference: what the policy must not move away from, or None.
        length: of a row, unless an answer is longer.

    Raises:
        DataError: there is no prompt.
    """

    def __init__(
        self,
        model: Any,
        sampler: Sampler,
        prompts: Sequence[Prompt],
        rewards: Sequence[tuple[Reward, float]],
        tokenizer: Tokenizer,
        config: RolloutConfig,
        *,
        reference: Any = None,
        length: int = 512,
        seed: int = 0,
    ) -> None:
        if not prompts:
            raise DataError("There is nothing to ask.", expected="at least one prompt", got="none")
        self._model, self._sampler, self._prompts, self._rewards = model, sampler, prompts, rewards
        self._tokenizer, self._config, self._reference, self._seed = tokenizer, config, reference, seed
        self._length = length
        self.rows_per_epoch = len(prompts)  # a prompt is to this what a row is to other batches
        self._step = 0
        self._drawn: tuple[list[Drawn], list[float]] | None = None

    def __iter__(self) -> Rollouts:
        return self

    def __next__(self) -> RolloutBatch:
        number, update = divmod(self._step, self._config.updates)
        if update == 0 or self._drawn is None:
            self._drawn = self._draw(number)
        self._step += 1
        drawn, facts = self._drawn
        length = max(self._length, *(one.example.size for one in drawn))
        rows = pack([one.example.size for one in drawn], length)
        return rollout_batch(drawn, rows, length, facts)

    def _draw(self, number: int) -> tuple[list[Drawn], list[float]]:
        config = self._config
        asked = [self._prompt(number * config.prompts + place) for place in range(config.prompts)]
        asked = [prompt for prompt in asked for _ in range(config.answers)]
        seeds = [seed_for(self._seed, "answer", number, place) for place in range(len(asked))]
        sampling = Sampling(max_new_tokens=config.longest, temperature=config.temperature)
        answers = self._sampler([prompt.ids for prompt in asked], seeds, sampling)
        totals = rewarded(asked, answers, self._rewards, self._tokenizer)
        groups = torch.tensor(totals).view(config.prompts, config.answers)
        lengths = torch.tensor([len(answer.ids) for answer in answers])
        advantages = policy.group_advantages(groups, config.scaling).flatten().tolist()
        weights = policy.token_weights(lengths, config.average, config.longest).tolist()
        drawn = [
            Drawn(example(list(prompt.ids), answer.ids), advantage, weight)
            for prompt, answer, advantage, weight in zip(asked, answers, advantages, weights, strict=True)
        ]
        facts = [
            statistics.fmean(totals),
            groups.std(dim=1, correction=0).mean().item(),
            lengths.float().mean().item(),
            statistics.fmean(answer.finished for answer in answers),
            (groups.amax(dim=1) == groups.amin(dim=1)).float().mean().item(),
        ]
        return self._scored(self._teaching(drawn)), facts

    def _prompt(self, place: int) -> Prompt:
        epoch, within = divmod(place, len(self._prompts))
        generator = np.random.Generator(np.random.PCG64(seed_for(self._seed, "prompts", epoch)))
        return self._prompts[int(generator.permutation(len(self._prompts))[within])]

    def _teaching(self, drawn: list[Drawn]) -> list[Drawn]:
        """Those that the gradient depends on: without a reference, not those that are rewarded like all the others."""
        left = [one for one in drawn if one.advantage != 0]
        return drawn if self._reference is not None else left or drawn[:1]

    def _scored(self, drawn: list[Drawn]) -> list[Drawn]:
        """With the log-probabilities that later steps need of now, and those of the reference."""
        examples, rows = [one.example for one in drawn], 4
        length = max(self._length, *(one.size for one in examples))
        heat = self._config.temperature
        if self._config.updates > 1:
            with _evaluating(self._model):
                old = token_logprobs(self._model, examples, rows, length, heat)
            drawn = [replace(one, old=values) for one, values in zip(drawn, old, strict=True)]
        if self._reference is not None:
            known = token_logprobs(self._reference, examples, rows, length, heat)
            drawn = [replace(one, reference=values) for one, values in zip(drawn, known, strict=True)]
        return drawn

    def state(self) -> dict[str, Any]:
        """The number of the next step, and the rollout that it goes on with, which is of older weights."""
        state: dict[str, Any] = {"step": self._step}
        if self._drawn is not None and self._step % self._config.updates:
            drawn, facts = self._drawn
            state |= {"facts": facts, "drawn": [_written(one) for one in drawn]}
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved :meth:`state`."""
        self._step, self._drawn = state["step"], None
        if "drawn" in state:
            self._drawn = ([_read(one) for one in state["drawn"]], state["facts"])


class Repeated:
    """The first batch again and again, for whoever only wants to see what batches are like."""

    def __init__(self, batches: Any) -> None:
        self._batches, self._first = batches, None

    def __iter__(self) -> Repeated:
        return self

    def __next__(self) -> Any:
        if self._first is None:
            state = self._batches.state()
            self._first = next(self._batches)
            self._batches.load_state(state)
        return self._first

    def state(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Nothing."""


def rewarded(
    prompts: Sequence[Prompt], answers: Sequence[Answer], rewards: Sequence[tuple[Reward, float]], tokenizer: Tokenizer
) -> list[float]:
    """The weighted sum of the rewards of each answer."""
    texts = [tokenizer.decode(answer.ids) for answer in answers]
    said, rows = [prompt.said for prompt in prompts], [prompt.row for prompt in prompts]
    columns = [[weight * value for value in reward(said, texts, rows)] for reward, weight in rewards]
    return [sum(values) for values in zip(*columns, strict=True)]


def greedy_rewards(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    rewards: Sequence[tuple[Reward, float]],
    tokenizer: Tokenizer,
    longest: int,
) -> list[float]:
    """The reward of the likeliest answer to each prompt."""
    sampling = Sampling(max_new_tokens=longest, temperature=0)
    answers = sampler([prompt.ids for prompt in prompts], [0] * len(prompts), sampling)
    return rewarded(prompts, answers, rewards, tokenizer)


def _written(one: Drawn) -> dict[str, Any]:
    """As JSON holds it, to the bit."""
    logs = {name: None if (values := getattr(one, name)) is None else values.tolist() for name in ("old", "reference")}
    ids, prompt = one.example.ids.tolist(), int((~one.example.counts).sum())
    return {"ids": ids, "prompt": prompt, "advantage": one.advantage, "weight": one.weight, **logs}


def _read(values: Mapping[str, Any]) -> Drawn:
    learned: Example = example(values["ids"][: values["prompt"]], values["ids"][values["prompt"] :])
    logs = {name: None if values[name] is None else np.array(values[name], np.float32) for name in ("old", "reference")}
    return Drawn(learned, values["advantage"], values["weight"], **logs)
