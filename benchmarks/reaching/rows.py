"""What is tuned, on what, and what it must reach: the rows of the table, each a command that a user could type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "reach"
CACHE = ROOT / "data" / "bench-reach"

Kind: TypeAlias = Literal["itself", "best", "doubled", "smaller"]
Talk: TypeAlias = tuple[str, ...]  # what a person says, turn by turn


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        start: the model to begin with: a name of ``material.MODELS``.
        data: labelled sets, each with rows to learn from and rows to measure on; none where ``material`` makes rows.
        command: what follows ``bimo tune``; ``--model``, ``--data``, ``--test``, ``--out`` and ``--seed`` are added.
        figure: the name of the figure in the lineage.
        goal: what the figure must reach, or how often the best baseline's.
        kind: how it is judged: by the figure itself, against the best baseline, or against the model before.
        rivals: baselines besides those that the run itself measures.
        tested: rows to measure on, drawn once for all seeds; None = all there are.
        talks: conversations that are kept, of a model that chats.
    """

    name: str
    what: str
    start: str
    data: tuple[str, ...]
    command: tuple[str, ...]
    figure: str
    goal: float
    kind: Kind
    rivals: tuple[str, ...] = ()
    tested: int | None = None
    talks: tuple[Talk, ...] = ()


LOW = ("--lora",)
# Less than half of the plan's: this model has read both languages, and loses some of it at higher rates.
GENTLE = ("--set", "optimizer.learning_rate=2e-4", "optimizer.adamw_learning_rate=2e-4")
SMALL_TALK: tuple[Talk, ...] = (
    ("hi, how are you today?", "what do you do for a living?", "do you have any pets?"),
    ("what did you do last weekend?", "that sounds fun! who did you go with?"),
)

_ALL = (
    Row(
        "sentiment-zh", "sentiment of Chinese reviews, 2 classes", "reviews-zh", ("reviews-zh",),
        ("classify", "--budget", "4-epochs"), "test_accuracy", 0.90, "itself", ("SnowNLP",),
    ),
    Row(
        "sentiment-en", "sentiment of English tweets, 3 classes", "minilm", ("tweets",),
        ("classify", "--budget", "2-epochs"), "test_accuracy", 0.82, "itself", ("VADER",),
    ),
    Row(
        "sarcasm-en", "sarcasm of English headlines", "minilm", ("sarcasm",),
        ("classify", "--budget", "2-epochs"), "test_accuracy", 0.91, "itself",
    ),
    Row(
        "translation-en-fr", "English to French, office help, whole pages held out", "help-fr", ("office-en-fr",),
        ("translate", "--source", "en", "--target", "fr", "--budget", "20000-examples", *GENTLE), "test_bleu", 1.5,
        "best",
    ),
    Row(
        "translation-debian-fr", "English to French, package descriptions, whole ones held out", "debian-fr",
        ("debian-en-fr",),
        ("translate", "--source", "en", "--target", "fr", "--budget", "12000-examples", *GENTLE), "test_bleu", 1.5,
        "best",
    ),
    Row(
        "translation-en-zh", "English to Chinese, office help, whole pages held out", "programs-zh", ("office-en-zh",),
        ("translate", "--source", "en", "--target", "zh", "--budget", "12000-examples"), "test_bleu_zh", 1.5, "best",
    ),
    Row(
        "boolq", "yes/no questions about a paragraph", "smollm2", ("boolq",),
        ("qa", "--kind", "yes-no", "--budget", "1200-examples", *LOW), "test_accuracy", 0.70, "itself", tested=800,
    ),
    Row(
        "summary-en", "synopsis of a package from its description", "smollm2", ("debian",),
        ("summarise", "--budget", "2000-examples", *LOW), "test_rougeL", 1.3, "best", tested=400,
    ),
    Row(
        "chat-en", "instructions (alpaca, English)", "smollm2", ("alpaca-en",),
        ("chat", "--budget", "1-epochs", *LOW), "test_bits_per_byte", 1.0, "smaller",
        talks=(
            ("Explain in two sentences why the sky is blue.",),
            ("Suggest three names for a small bakery by the sea.",),
            ("Rewrite in the past tense: She walks to school and meets her friends.",),
            ("What should I pack for a weekend in the mountains? Name four things.",),
        ),
    ),
    Row(
        "chat-zh", "instructions (alpaca, Chinese)", "smollm2", ("alpaca-zh",),
        ("chat", "--budget", "1-epochs", *LOW), "test_bits_per_byte", 1.0, "smaller",
        talks=(
            ("用两句话解释为什么天空是蓝色的。",),
            ("给一家海边的小面包店起三个名字。",),
            ("把这句话翻译成英文：我喜欢在早晨读书。",),
            ("周末去山里要带什么？说出四样东西。",),
        ),
    ),
    Row(
        "chitchat-en", "conversations of two people, on a model of bimo", "wiki-en", ("chitchat",),
        ("chat", "--budget", "1-epochs"), "test_bits_per_byte", 1.0, "smaller", talks=SMALL_TALK,
    ),
    Row(
        "chitchat-smollm2", "conversations of two people, on SmolLM2", "smollm2", ("chitchat",),
        ("chat", "--budget", "200-examples", *LOW), "test_bits_per_byte", 1.0, "smaller", tested=50, talks=SMALL_TALK,
    ),
    Row(
        "preference", "pairs of answers, English and Chinese", "smollm2", ("dpo-en", "dpo-zh"),
        ("prefer", "--budget", "1-epochs", *LOW, "--set", "model.context=1536"),
        "test_accuracy", 0.70, "itself",
    ),
    Row(
        "reinforce", "a bare number where sentences were learned, reward by a pattern", "sums", (),
        ("reinforce", "--reward", r"regex:\d+", "--plain", "--longest", "12", "--budget", "1600-examples", "--set",
         "reading.test=0.1"),
        "test_accuracy", 2.0, "doubled",
    ),
)  # fmt: skip
ROWS: Mapping[str, Row] = {row.name: row for row in _ALL}
