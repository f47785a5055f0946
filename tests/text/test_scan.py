"""What C finds in a text, and that the steps do the same with it as without: numpy and regular expressions witness."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo import compiled
from bimo.errors import DataError
from bimo.text import scan, scan_tables
from bimo.text.clean import language, pages, quality, repetition, unwrap
from bimo.text.document import KINDS, Document
from bimo.text.measures import MOST_TOKENS_OF, Measures
from bimo.text.prepare.recipe import Clean, build_steps

pytestmark = pytest.mark.skipif(compiled.compiler() is None, reason="no C compiler")

_PIECES = """The king of the land|which was not|der die das und|el perro de la casa|que no es lo que|was is of
却说曹操引兵追赶。|的了是在不|関連記事を読む|ไม่เป็นไร|한국어 단어|Καὶ ΤΗΣ ΟΔΟΥ|İstanbul|и в не на
naïve café|cafe\u0301|Ã©tÃ©|锛屾槸|\ufb01ne|🙂|𠀀|𝒳|\U000e0041|\u200b|\u00ad|\x00|\x85|â€™s
a@b.example|me (at) bb.org|me [AT] bb.org|ftp://u:p@h.example|password: hunter2hunter2|密码：a1b2c3d4|/?sig=a1b2c3d4
to\u212aen = 'a1b2c3d4'|\uff54oken = 'a1b2c3d4'|api–key = 'a1b2c3d4'|AKIAABCDEFGHIJKLMN12
api\uff3fkey = 'a1b2c3d4'|2a00:1450::2e|1.2.3.40|８.8.8.8|13800138000|138 0013 8000|138\u30000013\u30008000
（010）6552 9988|415–555–2671|+1 (415) 555-2671|+49 30\\n123\\n456|１３８００１３８０００
1914–1918|1,250,000|call 555-0123|31.7|7|２５|11010519491231002X|4111 1111 1111 1111|NO93 8601 1117 947
GB88 A1B2 C3D4 E5F6 G7H8 J9
- 12 -|Page 3 of 9|12|第4页|We use cookies|责任编辑：王|*** START OF THE PROJECT GUTENBERG EBOOK|ICP|12 THE WHALE
[Transcriber's note: no]|please enable JavaScript|lorem ipsum|#|...|{|•|well-|\\n1\\n2|GB1234567890"""
PIECES = [*_PIECES.replace("\n", "|").split("|"), "x" * 61, "-----BEGIN PRIVATE KEY-----\nabcdefghijklmnopqrst"]
GLUE = ["", " ", "\n", "\n\n", "\n\n\n\n", "\t", "  \n", "\u3000", "\xa0", "\u2009", "\r\n", "\f", *"-/.,’—"]
pieces = st.one_of(st.sampled_from(PIECES), st.sampled_from(GLUE), st.text(max_size=3))
texts = st.one_of(
    st.text(),
    st.text(st.sampled_from("aA1 9\n.-–@(é的ー́e")),
    st.lists(pieces, max_size=4).map("".join),  # few, so that one thing alone can decide
    st.lists(pieces, max_size=60).map("".join),
    st.lists(st.sampled_from(PIECES), min_size=20, max_size=90).map(" ".join),
    st.lists(st.sampled_from(PIECES[:14]), min_size=5, max_size=60).map(lambda lines: "\n".join(lines * 2)),
)


@contextmanager
def no_compiler() -> Iterator[None]:
    """Steps find everything out by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "scanner", lambda: None)
        scan.facts_of.cache_clear()
        yield
    scan.facts_of.cache_clear()


@given(texts)
@settings(max_examples=200, deadline=None)
def test_it_measures_what_numpy_measures(text: str) -> None:
    facts = scan.facts_of(text)
    assert facts is not None
    plain, fast = Measures(text), Measures(text, facts)
    for name in (
        "unspaced",
        "spaced_words",
        "lettered_words",
        "letters_and_digits",
        "marks_and_words",
        "repeats_lines",
    ):
        assert getattr(fast, name) == getattr(plain, name), name
    assert facts.token_characters == plain.tokens.edges[-1]
    covered = repetition.repeated_share(plain, 5)
    assert facts.repeated_characters / max(facts.token_characters, 1) == covered
    assert repetition.may_repeat(fast, 0.1) == repetition.may_repeat(plain, 0.1)
    stop_words = quality._stop_words(fast)
    assert np.array_equal(stop_words, quality._stop_words(plain), equal_nan=True)


@given(texts)
@settings(max_examples=200, deadline=None)
def test_it_sees_what_the_steps_look_for(text: str) -> None:
    facts, lines = scan.facts_of(text), text.split("\n")
    assert facts is not None
    assert facts.longest_block == max((end - begin for begin, end in unwrap._blocks(lines)), default=0)
    marks = [line for line in lines if line[-1:] in pages.LAST or line[:1] in pages.DIGITS]
    assert facts.mark_lines == sum(0 < len(line) <= pages.MARK_LENGTH for line in marks)
    if facts.sample_words:
        counted = facts.sample_words, facts.sample_english, facts.sample_mostly, facts.sample_foreign
        assert counted == language.counted_words(language._sample(text))


@given(texts, st.sampled_from(KINDS))
@settings(max_examples=400, deadline=None)
def test_every_step_does_the_same_without_a_compiler(text: str, kind: str) -> None:
    document = Document("a", text, "a.txt", kind=kind)
    fast = [step(document) for _, step in STEPS]
    with no_compiler():
        assert fast == [step(document) for _, step in STEPS]


@pytest.mark.parametrize("around", ["{}", "a plain line, {} and so on\n", "短文{}。", "\n{}\n\n{}  \n", "\u3000{}—"])
def test_one_thing_alone_is_seen(around: str) -> None:
    documents = [Document("a", around.replace("{}", piece), "a.txt") for piece in PIECES + GLUE]
    fast = [[step(document) for _, step in STEPS] for document in documents]
    with no_compiler():
        for document, found in zip(documents, fast, strict=True):
            assert found == [step(document) for _, step in STEPS]


STEPS = build_steps(Clean())


def test_every_function_word_is_known() -> None:
    for words in quality.STOP_WORDS:
        for first, second in zip(sorted(words), sorted(words)[1:], strict=False):
            text = f"{first.title()} {second.upper()} {second}. " + "1 " * 60
            facts = scan.facts_of(text)
            there = set(text.lower().split())
            assert facts is not None
            if "Σ" not in text:  # whose small letter depends on its place
                assert facts.stop_words == max(len(there & own) for own in quality.STOP_WORDS), text


@pytest.mark.parametrize("piece", ["the king ", "曹操、", "🙂 ", "a\u0301é "])
def test_only_the_beginning_of_a_long_text_has_tokens(piece: str) -> None:
    for shift in range(3):
        text = "x" * shift + piece * (MOST_TOKENS_OF // len(piece) + 20)
        facts, plain = scan.facts_of(text), Measures(text)
        assert facts is not None and facts.token_characters == plain.tokens.edges[-1]
        assert facts.repeated_characters == round(repetition.repeated_share(plain, 5) * plain.tokens.edges[-1])
        assert facts.tokens == plain.marks_and_words


def test_what_it_does_not_take_the_steps_do_alone() -> None:
    assert scan.facts_of("\ud800") is None and scan.facts_of("a" * (scan.LONGEST + 1)) is None
    assert scan.facts_of("") is not None
    with no_compiler():
        assert scan.facts_of("text") is None


def test_without_a_compiler_there_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    assert scan.library.__wrapped__() is None
    assert not scan.announcement()
    monkeypatch.setattr(scan, "library", lambda: None)
    assert "C compiler" in scan.announcement()


@given(st.text(st.characters(max_codepoint=127)) | st.text(st.sampled_from("aZ@[`{ \t\n\x0b\x1c\x1f\x7f")))
def test_ascii_is_folded_as_python_does(text: str) -> None:
    assert (scan.folded(text) or "") == " ".join(text.casefold().split())


FUZZ = """
import ctypes, random, sys
from bimo.text import scan, scan_tables
library = ctypes.CDLL(sys.argv[1])
library.fold.argtypes = ctypes.c_void_p, ctypes.c_int64
tables = scan_tables.ascii(library), scan_tables.unicode(library)
function, random = library.scan, random.Random(7)
pieces = [piece.encode() for piece in {pieces!r}]
for length in [*range(40), *[random.randrange(3000) for _ in range(1500)]]:
    raw = bytes(random.randrange(256) for _ in range(length))
    if random.random() < 0.7:
        raw = b"".join(random.choice([random.choice(pieces), raw[:2], b" ", b"\\n"]) for _ in range(length // 8 + 1))
        raw = raw[random.randrange(4) : len(raw) - random.randrange(4)]
    buffer = (ctypes.c_char * max(len(raw), 1)).from_buffer_copy(raw or b" ")
    assert 0 <= library.fold((ctypes.c_char * max(len(raw), 1)).from_buffer_copy(buffer), len(raw)) <= len(raw)
    for characters in (len(raw), random.randrange(-5, 5000)):
        for table in tables:
            facts = scan.Facts()
            assert function(buffer, ctypes.c_int64(len(raw)), ctypes.c_int64(characters),
                            ctypes.c_void_p(table.address), ctypes.byref(facts)) == 1
print("done")
"""


def test_any_bytes_are_safe(tmp_path: Path) -> None:
    """With the checks of the compiler on memory and arithmetic, which end the process at the first fault."""
    command, library = compiled.compiler(), tmp_path / "scan.so"
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    asked = [str(command), "-print-file-name=libasan.so"]
    runtime = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    try:
        compiled.compile_to(library, str(command), scan.SOURCE, flags, error=DataError)
    except DataError as cause:
        pytest.skip(str(cause))
    if not Path(runtime).is_absolute():
        pytest.skip("the compiler has no library for its checks")
    checks = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    ran = subprocess.run(
        [sys.executable, "-c", FUZZ.replace("{pieces!r}", repr(PIECES)), str(library)],
        env={**os.environ, **checks},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "done\n", ran.stderr[:3000]


def test_the_tables_have_room() -> None:
    library = scan.library()
    assert library
    table = scan_tables._words(library)
    filled = sum(1 for entry in table if entry.hash)
    words = set().union(*quality.STOP_WORDS, *quality.STOP_CHARACTERS, language.ONLY_ENGLISH, language.MOSTLY_ENGLISH)
    assert filled == len(words | language.not_english()) < scan_tables.SLOTS // 2
    assert ctypes.sizeof(scan.Facts) == 8 * len(scan.Facts._fields_)
