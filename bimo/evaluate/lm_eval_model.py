"""bimo's models in lm-eval (Gao et al. 2024), the field's harness, which asks of them what `bimo eval` asks.

    python -m bimo.evaluate.lm_eval_model run --model bimo --model_args path=runs/mine --tasks hellaswag

lm-eval (0.4.9 or newer) is the program here and bimo its guest, so it is no dependency of bimo. It finds models in a
table of its own and by no entry point; :func:`register` puts this one there.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bimo.errors import UsageError
from bimo.evaluate.continuations import Group, encode_pair, score_groups
from bimo.evaluate.writing import Prompt, write
from bimo.generate.language_model import load
from bimo.generate.sampling import Sampling

if TYPE_CHECKING:
    from bimo.generate.language_model import LanguageModel

NAME = "bimo"
OPEN = "\ue002"  # stands for what is still to come in an answer that was begun
MOST_NEW_TOKENS = 256  # where a task does not say, as lm-eval's own models have it


def register() -> type[Any]:
    """Make ``--model bimo`` known to lm-eval, and return its class.

    Raises:
        UsageError: lm-eval is not installed.
    """
    registry = _part("lm_eval.api.registry")
    _part("lm_eval.models")  # it adds its own models only to an empty table
    if NAME not in registry.model_registry:
        registry.register_model(NAME)(_model_class())
    found: type[Any] = registry.get_model(NAME)
    return found


def _part(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as cause:
        raise UsageError("lm-eval cannot be used.", got=str(cause), fix="Install it: pip install lm-eval") from None


def _model_class() -> type[Any]:
    base: Any = _part("lm_eval.api.model").LM

    class BimoModel(base):  # type: ignore[misc]
        """A folder as :func:`bimo.load` takes it; ``path``, ``device`` and ``dtype`` are its arguments."""

        def __init__(self, path: str, device: str | None = None, dtype: str = "auto", **_: Any) -> None:
            super().__init__()
            self._model = load(path, device=device or "auto", dtype=dtype)
            self._rendered = False  # whether prompts come from the chat template

        @property
        def tokenizer_name(self) -> str:
            return str(self._model.path).replace("/", "__")

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            """The template, by its name, as lm-eval records it."""
            if not chat_template:
                return None
            if chat_template not in (True, "default"):
                got = f"the name '{chat_template}'"
                raise UsageError("bimo knows one chat template of a model.", expected="--apply_chat_template", got=got)
            self._model.require_chat()
            return self._model.tokenizer.chat_template

        def apply_chat_template(
            self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
        ) -> str:
            self._rendered = True
            return rendered_chat(self._model, chat_history, add_generation_prompt)

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            pairs = [(self._meant(context), text) for context, text in (request.args for request in requests)]
            return likelihoods(
                self._model, [encode_pair(self._model, *pair, rendered=self._rendered) for pair in pairs]
            )

        def _meant(self, context: str) -> str:
            return self._model.tokenizer.meaning_control(context) if self._rendered else context

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            return [rolling(self._model, request.args[0]) for request in requests]

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            asked = [request.args for request in requests]
            model, conventions = self._model, self._model.conventions
            encode = model.tokenizer.encode if self._rendered else model.prompt_ids
            prompts = [Prompt(encode(self._meant(text)), _sampling(options)) for text, options in asked]
            ends = conventions.turn_ends if self._rendered else conventions.ends
            found = dict(write(model.model, model.tokenizer, prompts, ends=ends))
            return [str(found[number][0]) for number in range(len(prompts))]

    return BimoModel


def rendered_chat(
    model: LanguageModel, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
) -> str:
    """A conversation as the chat template writes it, with control tokens spelled out.

    Args:
        add_generation_prompt: end with the beginning of an answer; else the last message, an answer that was begun, is
            left open.

    Raises:
        BimoError: the model cannot hold a conversation, or its template refuses these messages, such as one of the
            system.
    """
    model.require_chat()
    if not add_generation_prompt:
        messages = [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}{OPEN}"}]
    rendered = model.tokenizer.render_chat(messages, add_generation_prompt)
    rendered = rendered if add_generation_prompt else rendered[: rendered.rindex(OPEN)]
    return model.tokenizer.spelling_control(rendered)


def likelihoods(model: LanguageModel, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    """Log-probability of what follows each context and whether it is greedy; equal contexts are computed once."""
    together: dict[tuple[int, ...], list[int]] = {}
    for number, (context, _) in enumerate(pairs):
        together.setdefault(tuple(context), []).append(number)
    members = list(together.values())
    groups = [Group(context, [pairs[number][1] for number in numbers]) for context, numbers in together.items()]
    found: dict[int, tuple[float, bool]] = {}
    for place, scores in score_groups(model.model, groups):
        found |= {number: score[:2] for number, score in zip(members[place], scores, strict=True)}
    return [found[number] for number in range(len(pairs))]


def rolling(model: LanguageModel, text: str) -> float:
    """Log-probability of a document, in windows as lm-eval cuts them: disjoint, the last one with what fits before."""
    ids, start = model.tokenizer.encode(text), list(model.conventions.start)
    return sum(logprob for logprob, _ in likelihoods(model, list(_windows(ids, start, model))))


def _windows(ids: list[int], start: list[int], model: LanguageModel) -> Iterator[tuple[list[int], list[int]]]:
    most = int(model.model.config.max_position_embeddings)
    for begin in range(0, len(ids), most):
        end = min(begin + most, len(ids))
        yield ids[max(0, end - most - 1) : begin] if begin else start, ids[begin:end]


def _sampling(options: Mapping[str, Any]) -> Sampling:
    stop = options.get("until") or ()
    warm = options.get("do_sample", False) or options.get("temperature", 0) > 0
    return Sampling(
        max_new_tokens=int(options.get("max_gen_toks", MOST_NEW_TOKENS)),
        temperature=float(options.get("temperature", 1.0)) if warm else 0,
        top_p=options.get("top_p"),
        top_k=options.get("top_k"),
        stop=(stop,) if isinstance(stop, str) else tuple(text for text in stop if text),
        seed=int(options.get("seed", 0)),
    )


def main() -> None:
    """lm-eval's command line, with bimo among its models."""
    register()
    _part("lm_eval.__main__").cli_evaluate()


if __name__ == "__main__":
    main()
