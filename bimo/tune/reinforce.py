"""Rewards: the model answers prompts, functions say what the answers are worth, and it learns from that; GRPO."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.config import setting
from bimo.errors import UsageError
from bimo.generate.sampling import Sampling
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.origin import opened
from bimo.tune.columns import find_columns
from bimo.tune.examples import Example
from bimo.tune.language import Conversing
from bimo.tune.policy import Average, Scaling
from bimo.tune.prefer import share
from bimo.tune.rewarded import PolicyObjective, rollout_loss
from bimo.tune.rewards import Reward, open_reward
from bimo.tune.rollout import Prompt, RolloutConfig, Rollouts, Sampler, rewarded
from bimo.tune.rows import Row, Rows
from bimo.tune.shapes import Message, Unshaped, text_of, turns
from bimo.tune.task import Refused, Role

if TYPE_CHECKING:
    from bimo.models import Model

PROMPT = Role("prompt", ("prompt", "messages", "question", "instruction", "query", "problem", "input", "问题", "指令"))
SEEN = "its batches are what the model itself answers"
UNPROVED = (
    *("loss", "first loss", "overfits", "padding", "accumulation", "precision", "gradients", "optimizer"),
    *("causality", "packing", "save and load", "transformers", "end of text", "nothing cut off"),
)


@dataclass(frozen=True, eq=False)
class Asked(Example):
    """A prompt, of which nothing is learned, and what the reward functions are told of it."""

    said: Any = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> Prompt:
        """It as rollouts want it."""
        return Prompt(tuple(self.ids.tolist()), self.said, self.values)


@dataclass(frozen=True)
class Reinforce(Conversing):
    """Learn what reward functions value, from prompts alone."""

    reward: tuple[str, ...] = setting(
        (), "FILE.py:function, number, exact, json or regex:PATTERN; several are added up"
    )
    weights: tuple[float, ...] = setting((), "what each reward counts; 1 if not given")
    seconds: float = setting(60.0, "that one call of a reward function may take")
    prompt: str = setting("", "the column of the prompts; found by its name if not given")
    plain: bool = setting(False, "continue prompts as texts, without a chat template")
    answers: int = setting(8, "to each prompt in a step")
    # R1 takes 32 prompts a step, DeepSeekMath 16, Dr. GRPO 128: half the least of them, as machines here are small.
    prompts: int = setting(
        8, "of a step at least, where the plan chooses: those whose answers are all worth the same teach nothing"
    )
    longest: int = setting(128, "tokens of an answer at most")
    temperature: float = setting(1.0, "of the draws")
    updates: int = setting(1, "steps that are learned from the same answers")
    kl: float = setting(0.0, "weight of the divergence from the model before training, which is then held in memory")
    clip_low: float = setting(0.2, "how far the probability of a token may fall in the updates after the first")
    clip_high: float = setting(0.2, "how far it may rise")
    scaling: Scaling = setting("group", "what advantages are divided by: the spread of the group, of the batch, none")
    average: Average = setting("answers", "what counts the same: answers, tokens, or constant, as in Dr. GRPO")

    rate = 0.05
    in_bits = False

    @property
    def name(self) -> str:
        return "reinforce"

    @property
    def roles(self) -> Sequence[Role]:
        return ()  # the rows go to the reward functions whole

    @property
    def skips(self) -> Mapping[str, str]:
        return dict.fromkeys(UNPROVED, SEEN)

    def settled(self, rows: Sequence[Row]) -> Reinforce:
        """The task that knows its columns and rewards.

        Raises:
            UsageError: there is no prompt or no reward, or a reward wants a column that is not there.
        """
        if not rows:
            return self
        columns = list(dict.fromkeys(key for row in rows for key in row.values))
        named = {"prompt": self.prompt} if self.prompt else {}
        found = find_columns(Rows("the data", list(rows), columns), [PROMPT], named)
        if not self.reward:
            raise UsageError(
                "There is no reward.", fix="Add --reward FILE.py:function, or one of those that come along."
            )
        if self.prompts < 1:
            raise UsageError("prompts is wrong.", expected="at least 1", got=str(self.prompts))
        if self.answers < 2:
            raise UsageError("answers is wrong.", expected="at least 2, which are compared", got=str(self.answers))
        weights = self.weights or (1.0,) * len(self.reward)
        if len(weights) != len(self.reward):
            raise UsageError("weights is wrong.", expected=f"{len(self.reward)}, one a reward", got=str(len(weights)))
        opened = [open_reward(name, columns, seconds=self.seconds) for name in self.reward]
        settings = {name: value for name, value in vars(self).items() if name != "prompt"}
        return Ready(**settings, prompt=found["prompt"], rewards=tuple(zip(opened, weights, strict=True)))

    def open(self, folder: Path, device: torch.device, *, seed: int = 0) -> tuple[Model, Tokenizer]:
        if not self.plain:
            return super().open(folder, device, seed=seed)
        origin = opened(folder)
        return origin.model.to(device), origin.tokenizer

    def texts(self, row: Row) -> tuple[str, str] | Refused:
        try:
            messages = self._messages(row)
        except Unshaped as cause:
            return Refused(str(cause))
        return "\n".join(one["content"] for one in messages), ""

    def prepare(self, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Example] | Refused:
        try:
            messages = self._messages(row)
        except Unshaped as cause:
            return Refused(str(cause))
        if self.plain:
            ids = [
                tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id,
                *tokenizer.encode(messages[-1]["content"]),
            ]
        else:
            ids = tokenizer.encode_chat(messages)
        if len(ids) + self.longest > longest:
            return Refused(f"the prompt leaves no room for {self.longest} tokens of answer within {longest}")
        nothing = np.zeros(len(ids), dtype=np.bool_)
        return [
            Asked(np.array(ids, dtype=np.int64), nothing, row.number, said=row.values[self.prompt], values=row.values)
        ]

    def ends(self, tokenizer: Tokenizer) -> frozenset[int]:
        return frozenset({tokenizer.eos_id}) if self.plain else super().ends(tokenizer) | {tokenizer.eos_id}

    def _messages(self, row: Row) -> list[Message]:
        value = row.values.get(self.prompt)
        if value in (None, "", []):
            raise Unshaped("an empty prompt")
        messages = [{"role": "user", "content": text_of(value)}] if isinstance(value, str) else turns(value)
        if messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        if not messages or not messages[-1]["content"].strip():
            raise Unshaped("an empty prompt")
        return messages


@dataclass(frozen=True)
class Ready(Reinforce):
    """The task that knows its columns and its rewards."""

    rewards: tuple[tuple[Reward, float], ...] = ()

    def acting(self, model: Any, tokenizer: Tokenizer, reference: Callable[[], Any]) -> Active:
        """The task with this model; its reference is loaded only where it is needed."""
        return Active(**vars(self), model=model, tokenizer=tokenizer, reference=reference() if self.kl else None)


@dataclass(frozen=True)
class Active(Ready):
    """The task with the model that answers."""

    model: Any = None
    tokenizer: Any = None
    reference: Any = None

    def batches(self, examples: Sequence[Any], *, batch_size: int, length: int, seed: int) -> Any:
        """Rollouts of ``batch_size`` prompts each."""
        config = RolloutConfig(
            batch_size, self.answers, self.longest, self.temperature, self.updates, self.scaling, self.average
        )
        prompts = [one.prompt for one in examples]
        return Rollouts(
            self.model, self._sampler(self.model, prompts), prompts, self.rewards, self.tokenizer, config,
            reference=self.reference, length=length, seed=seed,
        )  # fmt: skip

    def held_out(self, examples: Sequence[Any], *, batch_size: int, length: int) -> list[Batch]:
        return list(examples)

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        return rollout_loss(
            model, batch, PolicyObjective(self.clip_low, self.clip_high, self.kl, temperature=self.temperature)
        )

    def measure(self, model: Any, batches: list[Any]) -> dict[str, float]:
        """The mean reward of answers drawn as in training; the likeliest ones are perfect long before all are."""
        reward = statistics.fmean(self._rewards(model, batches, self.temperature))
        return {"loss": -reward, "reward": reward}

    def figures(self, model: Any, examples: Sequence[Any], tokenizer: Tokenizer, *, length: int) -> dict[str, Any]:
        """The mean reward of held-out prompts: of the likeliest answers, and of answers drawn as in training.

        Where every reward is 0 or 1, ``test_accuracy`` is that of the likeliest answers with its interval.
        """
        greedy, drawn = self._rewards(model, examples, 0.0), self._rewards(model, examples, self.temperature)
        figures: dict[str, Any] = {
            "test_reward": statistics.fmean(greedy),
            "test_reward_drawn": statistics.fmean(drawn),
        }
        if set(greedy) <= {0.0, 1.0}:
            figures["test_accuracy"] = share(torch.tensor(greedy, dtype=torch.float64) - 0.5)
        return figures

    def _rewards(self, model: Any, examples: Sequence[Any], temperature: float) -> list[float]:
        prompts = [one.prompt for one in examples]
        sampling = Sampling(max_new_tokens=self.longest, temperature=temperature)
        answers = self._sampler(model, prompts)([one.ids for one in prompts], [*range(len(prompts))], sampling)
        return rewarded(prompts, answers, self.rewards, self.tokenizer)

    def _sampler(self, model: Any, prompts: Sequence[Prompt]) -> Sampler:
        room = max(len(prompt.ids) for prompt in prompts) + self.longest
        return Sampler(model, self.ends(self.tokenizer), room=room, together=len(prompts) * self.answers)
