"""Which model: the shape with the fewest predicted bits per byte among those that the budget can train here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bimo.errors import TrainingError
from bimo.train.anchor import Anchor
from bimo.train.budget import Budget
from bimo.train.config import TrainConfig
from bimo.train.predict import Forecast, fitting_parameters, predict, tokens_to_reach
from bimo.train.probe import Machine, active_parameters, step_flops

# (width, layers): from what a minute of a laptop can use to what a GPU needs hours for.
SHAPES = (
    (64, 2), (96, 3), (128, 3), (160, 3), (192, 4), (256, 4), (256, 6), (320, 6), (384, 6),
    (448, 8), (512, 8), (640, 10), (768, 12), (1024, 16), (1280, 20),
)  # fmt: skip
AS_GOOD = 1.003  # times the fewest bits per byte: a smaller model that is this near is taken
LONGER, WORTH = 1.1, 1.0004  # training this much longer must lower the bits per byte by at least this factor
GOOD_EPOCHS, MOST_EPOCHS = 4.0, 100.0  # nearly as good as fresh text (Muennighoff et al. 2023); never more
FEWEST_TOKENS = 20_000
BYTES_A_PARAMETER = 24  # of memory: weights twice while a step is measured, gradients, two moments, activations


@dataclass(frozen=True)
class Candidate:
    """A shape that could be trained.

    Attributes:
        parameters: those of the layers and the output matrix.
        seconds_a_token: of training, predicted.
    """

    width: int
    layers: int
    parameters: int
    seconds_a_token: float


@dataclass(frozen=True)
class Choice:
    """The shape to train, for how many tokens, and what is expected of it.

    Attributes:
        most_tokens: reading more would teach next to nothing.
    """

    width: int
    layers: int
    parameters: int
    seconds_a_token: float
    tokens: float
    most_tokens: float
    forecast: Forecast
    reason: str

    @property
    def seconds(self) -> float:
        """Predicted time in the steps."""
        return self.tokens * self.seconds_a_token


class OutOfReach(TrainingError):
    """No training on this text is expected to reach the target; ``best`` is what comes nearest."""

    def __init__(self, target: float, best: Choice, anchor: Anchor) -> None:
        self.best = best
        super().__init__(
            f"{target:g} bits per byte are not to be expected with this much text.",
            expected=f"a target of {best.forecast.value:.2f} or more",
            got=f"{anchor.unique_tokens * anchor.bytes_per_token / 1e6:,.1f} MB of training text",
            fix="Add text, or give a higher target or a budget in time.",
        )


def candidates(
    config: TrainConfig, machine: Machine, anchor: Anchor, context: int, memory: float = math.inf
) -> list[Candidate]:
    """The ladder of shapes as far as the user left it open and memory allows, smallest first.

    Args:
        memory: bytes that are free; the smallest shape is taken even if it needs more.
    """
    pinned = config.model
    shapes = {
        (pinned.width or width, pinned.layers or layers)
        for width, layers in SHAPES
        if pinned.width is None or pinned.layers is not None or _near(pinned.width, width)
    }
    found = []
    for width, layers in shapes:
        flops = step_flops(width, layers, anchor.vocab_size, context)
        parameters = active_parameters(width, layers, anchor.vocab_size)
        found.append(Candidate(width, layers, parameters, flops / machine.speed(width, config.dtype)))
    found.sort(key=lambda one: one.parameters)
    needed = [BYTES_A_PARAMETER * (one.parameters + anchor.vocab_size * one.width) for one in found]
    return [one for one, size in zip(found, needed, strict=True) if size <= memory] or found[:1]


def _near(wanted: int, width: int) -> bool:
    """Whether ``width`` is the nearest of the ladder: its layers suit a model of the wanted width."""
    return abs(math.log(width / wanted)) == min(abs(math.log(one / wanted)) for one, _ in SHAPES)


def choose(found: Sequence[Candidate], budget: Budget, seconds: float | None, anchor: Anchor) -> Choice:
    """The best of the candidates for a budget of any kind.

    Raises:
        OutOfReach: a target in bits per byte that none can be expected to reach.
    """
    if budget.bits_per_byte is not None:
        choice = for_target(found, budget.bits_per_byte, anchor)
        if choice is None:
            raise OutOfReach(budget.bits_per_byte, best_possible(found, anchor), anchor)
        return choice
    if seconds is not None:
        return for_time(found, seconds, anchor)
    return for_tokens(found, budget.tokens or (budget.epochs or 1.0) * anchor.unique_tokens, anchor)


def for_time(found: Sequence[Candidate], seconds: float, anchor: Anchor) -> Choice:
    """The fewest bits per byte after ``seconds`` of training."""
    choices = []
    for one in found:
        most = most_useful_tokens(one, anchor)
        tokens = min(most, max(FEWEST_TOKENS, seconds / one.seconds_a_token))
        choices.append(_choice(one, tokens, most, anchor, "fewest predicted bits per byte for this time"))
    return _smallest_as_good(choices)


def for_tokens(found: Sequence[Candidate], tokens: float, anchor: Anchor) -> Choice:
    """The largest model that so many tokens fill: larger ones would better be given more tokens, or have less text."""
    tokens = max(1.0, tokens)
    limit = fitting_parameters(tokens)
    one = next((one for one in reversed(found) if one.parameters <= limit), found[0])
    most = max(tokens, most_useful_tokens(one, anchor))
    return _choice(one, tokens, most, anchor, f"the largest that {tokens / 1e6:,.1f} million tokens fill")


def for_target(found: Sequence[Candidate], target: float, anchor: Anchor) -> Choice | None:
    """The shape that reaches ``target`` bits per byte soonest; None if none is expected to."""
    choices = []
    for one in found:
        most = most_useful_tokens(one, anchor)
        tokens = tokens_to_reach(anchor, one.parameters, target, most)
        if tokens is not None:
            tokens = max(FEWEST_TOKENS, tokens)
            choices.append(_choice(one, tokens, most, anchor, f"reaches {target:g} bits per byte soonest"))
    return min(choices, key=lambda choice: choice.seconds, default=None)


def best_possible(found: Sequence[Candidate], anchor: Anchor) -> Choice:
    """The fewest bits per byte that this much text can give, however long the training."""
    choices = []
    for one in found:
        most = most_useful_tokens(one, anchor)
        choices.append(_choice(one, most, most, anchor, "as good as this much text allows"))
    return _smallest_as_good(choices)


def most_useful_tokens(one: Candidate, anchor: Anchor) -> float:
    """After how many tokens a longer training lowers the bits per byte by next to nothing."""
    low, high = FEWEST_TOKENS * 1.0, max(FEWEST_TOKENS * 2.0, MOST_EPOCHS * anchor.unique_tokens)

    def pays(tokens: float) -> bool:
        now, later = (predict(anchor, one.parameters, count).value for count in (tokens, LONGER * tokens))
        return now / later > WORTH

    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if pays(middle) else (low, middle)
    return max(low, GOOD_EPOCHS * anchor.unique_tokens)


def _choice(one: Candidate, tokens: float, most: float, anchor: Anchor, reason: str) -> Choice:
    forecast = predict(anchor, one.parameters, tokens)
    return Choice(one.width, one.layers, one.parameters, one.seconds_a_token, tokens, most, forecast, reason)


def _smallest_as_good(choices: Sequence[Choice]) -> Choice:
    best = min(choice.forecast.value for choice in choices)
    chosen = next(choice for choice in choices if choice.forecast.value <= AS_GOOD * best)
    if chosen.tokens >= chosen.most_tokens and chosen is not choices[-1]:
        return replace(chosen, reason="larger models would learn next to nothing more from this much text")
    return chosen
