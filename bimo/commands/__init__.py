"""The commands of ``bimo``, one file each; what is heavy is imported when a command runs, so that help is quick."""

from typing import Literal

Device = Literal["auto", "cpu", "cuda", "mps"]
