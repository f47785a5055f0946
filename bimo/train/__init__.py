"""Training: a plan for the time there is, one loop, exact checkpoints, and pretraining as their first use."""

import importlib
import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """``bimo.train`` is this folder and, for users of ``import bimo``, the function that trains."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return importlib.import_module("bimo.train.pretrain").train(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
