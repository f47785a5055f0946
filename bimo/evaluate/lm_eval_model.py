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

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            return likelihoods(self._model, [encode_pair(self._model, *request.args) for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            return [rolling(self._model, request.args[0]) for request in requests]

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            asked = [request.args for request in requests]
            prompts = [Prompt(self._model.prompt_ids(text), _sampling(options)) for text, options in asked]
            found = dict(write(self._model.model, self._model.tokenizer, prompts, ends=self._model.conventions.ends))
            return [str(found[number][0]) for number in range(len(prompts))]

    return BimoModel


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
