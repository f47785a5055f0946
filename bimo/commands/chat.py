"""``bimo chat``: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimo.commands import Device
from bimo.commands.results import checked, tell
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.generate.conversation import Conversation
    from bimo.generate.language_model import LanguageModel


def chat(
    run: Path,
    /,
    *,
    system: str | None = None,
    temperature: float = 0.7,
    top_p: float | None = None,
    min_p: float = 0.1,
    repetition_penalty: float = 1.1,
    max_new_tokens: int = 500,
    seed: int | None = None,
    device: Device = "auto",
) -> None:
    """Talk with a chat model in the terminal.

    /reset forgets what was said, /exit or Ctrl-D ends, Ctrl-C breaks off a
    reply. A base model continues texts but does not answer: use `generate`.

        bimo chat runs/assistant --system "You answer in one sentence."
        bimo chat runs/assistant --temperature 0 < questions.txt

    Args:
        run: a run directory or a Hugging Face folder of a chat model
        system: what the model is told before the conversation
        temperature: 0 takes the likeliest token, higher is more varied
        top_p: draw from the likeliest tokens that together have this probability
        min_p: drop tokens less likely than this share of the likeliest one, of which small models lose the thread
        repetition_penalty: above 1, tokens seen before become less likely, so that a reply does not go round in circles
        max_new_tokens: tokens of a reply at most
        seed: repeats a conversation; drawn at random if not given
        device: where to compute; auto takes the best device present
    """
    from bimo.generate.engaged import load_engaged

    with load_engaged(run, device, tell) as model:
        options: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "min_p": min_p, "seed": seed}
        options |= {"repetition_penalty": repetition_penalty, "max_new_tokens": max_new_tokens}
        _converse(model, system, options)


def _converse(model: LanguageModel, system: str | None, options: Mapping[str, Any]) -> None:
    from bimo.generate.conversation import Conversation

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
            _say(conversation, line, options)


def _say(conversation: Conversation, line: str, options: Mapping[str, Any]) -> None:
    dropped = conversation.dropped
    try:
        for piece in conversation.say(line, **options):
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
