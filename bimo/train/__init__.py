"""Training: a plan for the time there is, one loop, exact checkpoints, and pretraining as their first use."""

import importlib
import sys
import types
from typing import Any

FUNCTION = "bimo.train.pretrain:train"


class FolderAndFunction(types.ModuleType):
    """``bimo.train`` is this folder and, for users of ``import bimo``, the function that trains: its ``FUNCTION``."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        module, _, function = self.FUNCTION.partition(":")
        return getattr(importlib.import_module(module), function)(*arguments, **options)


sys.modules[__name__].__class__ = FolderAndFunction
