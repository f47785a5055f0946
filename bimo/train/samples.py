"""What the model writes as it learns: a short continuation now and then, always of the same words."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from bimo.batches.shards import Tokens
from bimo.device import seed_for
from bimo.errors import ModelError
from bimo.generate.generate import generate_ids, room_for
from bimo.generate.sampling import Sampling
from bimo.generate.stream import TextStream
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.build import eagerly, in_float32
from bimo.train.hooks import INTERRUPTED, Validate
from bimo.train.loop import Progress

if TYPE_CHECKING:
    from bimo.models import Model

SHARE = 0.01  # of the training time that samples may take; a first and a last one are always made
LENGTH = 40  # tokens
TEMPERATURE = 0.8
MOST = 12  # samples: where one costs nothing, more would only be more of the same
OPENING_TOKENS = 64  # of a document, in which the words of the prompt are looked for
WORDS, CHARACTERS = 6, 12  # of the prompt: words where the text has spaces, characters where it has none


class Samples:
    """Appends to ``samples.jsonl`` after some validations; the training itself is the same with and without it.

    A sample depends on the weights, the run's seed and the step alone; only which steps have one depends on the clock.

    Args:
        prompt: ids of what is continued, the token that starts a document included.
        step: where training begins; samples of later steps, from before a crash, are dropped.
    """

    def __init__(
        self,
        run: Run,
        model: Model,
        tokenizer: Tokenizer,
        prompt: list[int],
        validate: Validate,
        *,
        seed: int,
        step: int,
    ) -> None:
        self._run, self._model, self._tokenizer, self._validate = run, model, tokenizer, validate
        self._prompt, self._seed = prompt, seed
        self._made = [(int(sample["step"]), float(sample["seconds"])) for sample in run.keep_samples_until(step)]

    def __call__(self, progress: Progress) -> None:
        validation = self._validate.last
        if validation is None or validation[0] != progress.step or not self._due(progress):
            return
        began = time.perf_counter()
        text = self._continuation(progress.step)
        cost = time.perf_counter() - began
        self._made.append((progress.step, cost))
        if text is None:
            return
        sample: dict[str, Any] = {
            "step": progress.step,
            "prompt": self._tokenizer.decode(self._prompt),
            "text": text,
            "validation_bits_per_byte": round(validation[1], 6),
            "seconds": round(cost, 3),
        }
        self._run.append_sample(sample)

    def _due(self, progress: Progress) -> bool:
        """Whether it is time: what the share of the whole training pays for is spread evenly over log(steps)."""
        if not self._made or progress.step == progress.steps or progress.stop:
            return progress.stop != INTERRUPTED
        step, cost = self._made[-1]
        allowed = SHARE * progress.seconds * progress.steps / progress.step
        spent = sum(seconds for _, seconds in self._made)
        more = min((allowed - spent) / max(cost, 1e-6), MOST - len(self._made))  # samples, the last one included
        return more >= 2 and progress.step >= step * (progress.steps / step) ** (1 / more)

    def _continuation(self, step: int) -> str | None:
        """What the model as it is writes; None where its output is not a number, which training will notice itself."""
        stream = TextStream()
        try:
            tokens = continued(self._model, self._prompt, seed_for(self._seed, "sample", step) % 2**32)
        except ModelError:
            return None
        # without the bytes of a last character that was cut
        return "".join(stream.add(self._tokenizer.token_bytes(token)) for token in tokens)


def continued(model: Model, prompt: list[int], seed: int) -> list[int]:
    """The ids of a sample, which the token that starts the prompt would end; the model is left in evaluation mode.

    In float32: a CPU's products in bfloat16 have a kernel for each length of the text, and keep all of them.

    Raises:
        ModelError: what the model computes is not a number.
    """
    model.eval()  # the next step says train() itself
    sampling = Sampling(max_new_tokens=room_for(model, len(prompt), LENGTH), temperature=TEMPERATURE)
    with eagerly(), in_float32(model):
        steps = generate_ids(model, prompt, sampling, seeds=[seed], eos_ids={prompt[0]})
        return [one.token for one in steps if one.finish_reason != "stop"]


def opening(tokens: Tokens, tokenizer: Tokenizer, context: int) -> list[int]:
    """The ids of a prompt: the first words of the first document that has some, with the token that starts it."""
    for start in tokens.starts[:100]:
        ids = tokens.ids[int(start) + 1 : int(start) + 1 + OPENING_TOKENS].tolist()
        end = ids.index(tokens.eos_id) if tokens.eos_id in ids else len(ids)
        if words := first_words(tokenizer.decode(ids[:end]).rstrip("\ufffd")):
            return [tokens.eos_id, *tokenizer.encode(words)][: max(1, context // 2)]
    return [tokens.eos_id]


def first_words(text: str) -> str:
    """The first few words of a text, on one line; of a text that is written without spaces, the first characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    words = re.findall(r"\S+", line)[:WORDS]
    longest = max(map(len, words), default=0)
    return line[:CHARACTERS] if longest > 2 * CHARACTERS or re.search("[\u3040-\u9fff]", line) else " ".join(words)
