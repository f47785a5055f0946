"""From a model to one that does a task: objectives over the one training loop. Called, it tunes: see ``tune.py``."""

import sys

from bimo.train import FolderAndFunction

FUNCTION = "bimo.tune.tune:tune"
sys.modules[__name__].__class__ = FolderAndFunction
