"""A tuned model at work: it is asked as in training, many questions at once, and answers in their order.

    model = bimo.load("runs/en-zh")
    translate(model, ["Good morning.", "Where is the station?"])
    ask(bimo.load("runs/qa"), ["Is it up?"], passages=["The moon is up."])

The prompt, the languages, the system message and the kind of answer are those that the run was tuned with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bimo.config import read_yaml
from bimo.errors import RunError, UsageError
from bimo.evaluate.continuations import Group, score_groups
from bimo.evaluate.writing import Prompt, write
from bimo.generate.options import read_options
from bimo.run import Run
from bimo.tune.asking import ANSWER_TOKENS, UNUSABLE, Asking
from bimo.tune.language import answers_of
from bimo.tune.shapes import Unshaped, text_of
from bimo.tune.tasks import make_task

if TYPE_CHECKING:
    from bimo.generate.language_model import LanguageModel

TURN_TOKENS = 8  # that a template may write around an answer
ANCESTORS = 8  # runs that are looked through for how a model was tuned
VERBS = {"translate": "translate", "summarise": "summarise", "qa": "answer questions"}
AT_ONCE = 256  # questions that are encoded and given to the engine together

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model makes of one question; ``str`` of it is the text.

    Attributes:
        finish_reason: "stop" at its end, "length" at a limit, "choice" where there were a few answers only, "refused"
            where it could not be asked.
        probability: of this answer among the only ones there are, as of yes and no.
        start: where the answer begins in its passage, in characters; None if it does not stand there.
        end: where it ends there, exclusive.
        cut: characters at the end of the question's longest part that the model was not shown for want of room.
        reason: why it could not be asked.
    """

    text: str
    finish_reason: str
    probability: float | None = None
    start: int | None = None
    end: int | None = None
    cut: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return self.text


def translate(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    target: str | None = None,
    num_beams: int | None = None,
    warn: Tell = lambda _: None,
    **options: Any,
) -> list[Answer]:
    """Translate each text.

    Args:
        model: as ``bimo.load`` gives it, of a run of `bimo tune translate` or any chat model.
        target: the language, such as zh; that of the run if not given.
        num_beams: translations that are followed at once for the likeliest (beam search), where nothing is drawn and no
            penalty given; that of the run if not given.
        warn: told of a model that was not tuned for this, and of fallbacks.
        options: fields of :class:`bimo.generate.sampling.Sampling`; the likeliest tokens if not said otherwise.

    Raises:
        RunError: the model was not tuned for this and is no chat model.
        UsageError: an option is wrong, or the target language is not known.
    """
    task = open_task(model, "translate", {"target": target, "num_beams": num_beams}, warn)
    return list(answers(model, task, [{"source": text} for text in several(texts)], warn=warn, **options))


def summarise(
    model: LanguageModel,
    documents: Sequence[str],
    *,
    num_beams: int | None = None,
    warn: Tell = lambda _: None,
    **options: Any,
) -> list[Answer]:
    """Summarise each document; otherwise as :func:`translate`."""
    task = open_task(model, "summarise", {"num_beams": num_beams}, warn)
    return list(answers(model, task, [{"document": text} for text in several(documents)], warn=warn, **options))


def ask(
    model: LanguageModel,
    questions: Sequence[str],
    passages: Sequence[str | None] = (),
    *,
    kind: str | None = None,
    num_beams: int | None = None,
    warn: Tell = lambda _: None,
    **options: Any,
) -> list[Answer]:
    """Answer each question; otherwise as :func:`translate`.

    Args:
        passages: what each question is about, None where there is nothing; as many as questions, or none at all.
        kind: "yes-no" for the likelier of the two, with its probability; that of the run if not given.
    """
    task = open_task(model, "qa", {"kind": kind, "num_beams": num_beams}, warn)
    about = several(passages) or [None] * len(several(questions))
    if len(about) != len(questions):
        expected = f"none, or one for each of {len(questions)} questions"
        raise UsageError("The passages are wrong.", expected=expected, got=str(len(about)))
    rows = [{"question": one, "passage": passage} for one, passage in zip(questions, about, strict=True)]
    return list(answers(model, task, rows, warn=warn, **options))


def several(texts: Sequence[Any]) -> list[Any]:
    """``texts`` as a list.

    Raises:
        UsageError: it is one text.
    """
    if isinstance(texts, str):
        raise UsageError("The texts are wrong.", expected="a list of texts", got="one text")
    return list(texts)


def open_task(model: LanguageModel, name: str, settings: Mapping[str, Any], warn: Tell) -> Asking:
    """The task as the model was tuned for it, or where it was not, with its usual prompt.

    Args:
        settings: of the task, which go before those of the run; None is none.
        warn: told where the model was not tuned for it.

    Raises:
        RunError: the model was not tuned for it and is no chat model.
        UsageError: a target language is needed and not given.
    """
    said = {key: value for key, value in settings.items() if value is not None}
    tuned = tuned_options(model.path, name)
    usual = {"num_beams": 1} if tuned is None else tuned  # searched for, others repeat themselves
    task = cast(Asking, make_task(name, {**usual, **said}))
    verb = VERBS[name]
    if tuned is None:
        fix = f"Tune it first: bimo tune {name} --model {model.path} --data FILE."
        if model.conventions.no_chat is not None:
            problem = f"{model.path} was not tuned to {verb}, and cannot chat: {model.conventions.no_chat}."
            raise RunError(problem, fix=fix)
        if name == "translate" and not said.get("target"):
            got = "a model that was not tuned to translate"
            raise UsageError("The language to translate into is not known.", expected="such as --target zh", got=got)
        warn(f"{model.path} was not tuned to {verb}: it is asked as any chat model is. {fix}")
    elif "target" in said and said["target"] != tuned.get("target", ""):
        warn(f"{model.path} was not tuned to translate into {said['target']}: it is asked nevertheless.")
    return task


def tuned_options(folder: Path, name: str) -> Mapping[str, Any] | None:
    """The settings of the task ``name`` in the run, or in the nearest run it was made of; None where there is none."""
    for _ in range(ANCESTORS):
        run = Run(folder)
        lineage = run.read_lineage() if run.lineage.is_file() else {}
        tuned = read_yaml(run.config) if run.config.is_file() else lineage.get("tuned") or {}  # an adapter, merged
        if tuned.get("task") == name:
            return dict(tuned.get("options") or {})
        parent = lineage.get("parent") or {}
        if not parent.get("folder"):
            return None
        folder = Path(parent["folder"])
    return None


def answers(
    model: LanguageModel,
    task: Asking,
    rows: Sequence[Mapping[str, Any]],
    *,
    warn: Tell = lambda _: None,
    **options: Any,
) -> Iterator[Answer]:
    """The answer to each row, values by role, in their order, each as soon as it and those before it are there.

    Args:
        options: as of :func:`translate`.

    Raises:
        UsageError: an option is wrong.
    """
    given = {"temperature": 0, "seed": 0, **{key: value for key, value in options.items() if value is not None}}
    reserve = _reserved(model, task, given)
    answered = _weighed if task.choices else _written
    for first in range(0, len(rows), AT_ONCE):
        asked = [_asked(model, task, row, reserve) for row in rows[first : first + AT_ONCE]]
        refused = [(number, one) for number, one in enumerate(asked) if isinstance(one, Answer)]
        left = {number: one for number, one in enumerate(asked) if isinstance(one, _Asked)}
        ready: dict[int, Answer] = {}
        at = 0
        for number, answer in itertools.chain(refused, answered(model, task, left, given, warn)):
            ready[number] = answer
            while at in ready:
                yield ready.pop(at)
                at += 1


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as the model is shown it: the ids up to the answer."""

    values: Mapping[str, Any]
    ids: list[int]
    cut: int


def _reserved(model: LanguageModel, task: Asking, options: Mapping[str, Any]) -> int:
    """The tokens that every question leaves for its answer."""
    sampling, n = read_options(options, 1)
    context = int(model.model.config.max_position_embeddings)
    if n > 1:
        raise UsageError("A question has one answer.", expected="n = 1", got=f"n = {n}")
    if task.choices:
        return max(len(model.tokenizer.encode(text)) for text in task.choices) + TURN_TOKENS
    if "max_new_tokens" not in options and "max_length" not in options:
        return min(ANSWER_TOKENS, context // 4)
    if sampling.max_new_tokens >= context:
        expected = f"max_new_tokens below the model's {context}"
        raise UsageError("There is no room for a question.", expected=expected, got=str(sampling.max_new_tokens))
    return sampling.max_new_tokens


def _asked(model: LanguageModel, task: Asking, row: Mapping[str, Any], reserve: int) -> _Asked | Answer:
    """The row as the model is shown it, without the end of its longest part where there is no room for it."""
    room = int(model.model.config.max_position_embeddings) - reserve
    values = {role: value for role, value in row.items() if value not in UNUSABLE}
    try:
        for role in task.asked_roles:
            if role.needed and not text_of(values.get(role.name, "")).strip():
                raise Unshaped(f"no {role.name}")
        ids = _ids(model, task, values)
        text = text_of(values.get(task.shortened, ""))
    except Unshaped as cause:
        return Answer("", "refused", reason=str(cause))
    if len(ids) <= room:
        return _Asked(values, ids, 0)
    fits, fails = 0, len(text)  # characters
    while fails - fits > 1:
        middle = (fits + fails) // 2
        found = _ids(model, task, {**values, task.shortened: text[:middle]})
        if len(found) <= room:
            fits, ids = middle, found
        else:
            fails = middle
    if not fits:
        return Answer("", "refused", reason=f"longer than the {room} tokens there is room for")
    return _Asked({**values, task.shortened: text[:fits]}, ids, len(text) - fits)


def _ids(model: LanguageModel, task: Asking, values: Mapping[str, Any]) -> list[int]:
    return model.chat_ids(task.conversation(task.question(values)))


Numbered = Iterator[tuple[int, Answer]]


def _written(
    model: LanguageModel, task: Asking, left: Mapping[int, _Asked], options: Mapping[str, Any], warn: Tell
) -> Numbered:
    context = int(model.model.config.max_position_embeddings)
    prompts = []
    for one in left.values():
        most = min(context - len(one.ids), task.longest(len(one.ids)))
        prompts.append(Prompt(one.ids, read_options({"max_new_tokens": most, **options}, len(one.ids))[0]))
    numbers, ends = list(left), model.conventions.turn_ends
    beams = task.num_beams if all(prompt.sampling.plain for prompt in prompts) else 1
    for place, (text,) in write(model.model, model.tokenizer, prompts, ends=ends, num_beams=beams, warn=warn):
        one, said = left[numbers[place]], text.strip()
        start, end = task.place(one.values, said) or (None, None)
        yield numbers[place], Answer(said, text.finish_reason, start=start, end=end, cut=one.cut)


def _weighed(
    model: LanguageModel, task: Asking, left: Mapping[int, _Asked], options: Mapping[str, Any], warn: Tell
) -> Numbered:
    numbers = list(left)
    groups = [_choices(model, task, one.values) for one in left.values()]
    for place, scores in score_groups(model.model, groups):
        top = max(score.logprob for score in scores)
        shares = [math.exp(score.logprob - top) for score in scores]
        best = shares.index(max(shares))
        probability = shares[best] / sum(shares)
        yield numbers[place], Answer(task.choices[best], "choice", probability, cut=left[numbers[place]].cut)


def _choices(model: LanguageModel, task: Asking, values: Mapping[str, Any]) -> Group:
    """The only answers there are after their question, each with the end of its turn, as they are learned."""
    messages = task.conversation(task.question(values))
    said = [
        answers_of(model.tokenizer).of([*messages, {"role": "assistant", "content": text}]) for text in task.choices
    ]
    begins = [one.counts.index(True) for (one,) in said]
    (context, *others) = [one.ids[:begin] for (one,), begin in zip(said, begins, strict=True)]
    assert all(other == context for other in others), "a prompt does not depend on its answer"
    return Group(context, [one.ids[begin:] for (one,), begin in zip(said, begins, strict=True)])
