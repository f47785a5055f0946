"""``bimo chat``: a conversation in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bimo.commands import Device
from bimo.commands.results import checked
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.generate.conversation import Conversation


def chat(run: Path, /, *, system: str | None = None, device: Device = "auto") -> None:
    """Talk with a chat model in the terminal.

    /reset forgets what was said, /exit or Ctrl-D ends, Ctrl-C breaks off a
    reply. A base model continues texts but does not answer: use `generate`.

        bimo chat runs/assistant --system "You answer in one sentence."

    Args:
        run: a run directory or a Hugging Face folder of a chat model
        system: what the model is told before the conversation
        device: where to compute; auto takes the best device present
    """
    from bimo.generate.conversation import Conversation
    from bimo.generate.language_model import load

    model = load(run, device=device)
    conversation = Conversation(model, system)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        _edit_lines()
        print("/reset forgets, /exit or Ctrl-D ends", file=sys.stderr)
    while True:
        try:
            line = checked(input("> " if interactive else "")).strip()
        except EOFError:
            return
        if line == "/exit":
            return
        if line == "/reset":
            conversation = Conversation(model, system)
        elif line:
            _say(conversation, line)


def _say(conversation: Conversation, line: str) -> None:
    dropped = conversation.dropped
    try:
        for piece in conversation.say(line):
            print(piece, end="", flush=True)
    except UsageError as cause:  # too long: the conversation goes on without it
        print(f"error: {cause}", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    print()
    if conversation.dropped > dropped:
        print("(the oldest messages no longer fit and were left out)", file=sys.stderr)


def _edit_lines() -> None:
    """Let ``input`` move within a line and recall earlier ones, where Python was built with it."""
    try:
        import readline  # noqa: F401
    except ImportError:
        pass
