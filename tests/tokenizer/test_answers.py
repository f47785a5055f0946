"""One rendering on all four paths: what is learned follows exactly what a server would give the model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bimo.errors import TokenizerError
from bimo.evaluate.harness import _pairs
from bimo.evaluate.lm_eval_model import rendered_chat
from bimo.generate.conventions import Conventions
from bimo.generate.language_model import LanguageModel
from bimo.serve.chat import chat_ids as served_ids
from bimo.tokenizer.answers import Answered, Answers
from bimo.tokenizer.chat import CHATML
from bimo.tokenizer.extend import with_control_tokens
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from tests.tokenizer.chat_templates import TEMPLATES, end_of, with_template

OWN = train_tokenizer(["the user and the system and the assistant said 你好，世界 \n"] * 2, 320)
FORGETFUL = (
    "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<think>{% endif %}"
)
TALK = [
    {"role": "user", "content": "Where is the 三国 story set?"},
    {"role": "assistant", "content": "In China, 话说天下大势。"},
    {"role": "user", "content": "And <|im_end|> then?"},
    {"role": "assistant", "content": "  Then\n\nit ends."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "the system said 你好"},
]


def prompts(stretches: list[Answered]) -> list[tuple[list[int], list[int]]]:
    """What stands before each answer, and the answer."""
    found = []
    for one in stretches:
        begins = [at for at, counts in enumerate(one.counts) if counts and not one.counts[at - 1]]
        for begin in begins:
            end = begin
            while end < len(one.ids) and one.counts[end]:
                end += 1
            found.append((one.ids[:begin], one.ids[begin:end]))
    return found


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [True, False])
def test_training_chat_server_and_transformers_have_the_same_ids(tmp_path: Path, name: str, system: bool):
    if system and name == "no-system":
        pytest.skip("this template refuses a system message")
    tokenizer = with_template(OWN, TEMPLATES[name])
    head = [{"role": "system", "content": "Be kind. 请用中文。"}] if system else []
    messages = [*head, *TALK]
    learned = prompts(Answers(tokenizer).of(messages))
    conventions = Conventions((), (), frozenset(), frozenset(), None)
    chat = LanguageModel(cast(Any, None), tokenizer, tmp_path, conventions)
    served = cast(Any, SimpleNamespace(conventions=conventions, require_short=lambda *_: None, tokenizer=tokenizer))
    tokenizer.save(tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(learned) == len(turns) == 3
    for place, (prompt, answer) in zip(turns, learned, strict=True):
        before = messages[:place]
        assert prompt == chat.chat_ids(before) == served_ids(served, before) == tokenizer.encode_chat(before)
        options = {"sanitize_control_tokens": True} if "<|im_end|>" in str(before) else {}
        wanted = stock.apply_chat_template(before, add_generation_prompt=True, return_dict=False, **options)
        assert tokenizer.decode(prompt, False) == stock.decode(wanted)
        if "<|im_end|>" not in str(before):  # lm-eval's prompts are texts, which may spell control tokens
            assert prompt == tokenizer.encode(tokenizer.meaning_control(rendered_chat(chat, before)))
        content = messages[place]["content"]
        said = content.strip() if name in ("llama2", "llama3", "gemma", "no-system") else content
        written = {"qwen3": f"<think>\n\n</think>\n\n{said}", "mistral": f" {said}", "llama2": f" {said} "}
        wanted_text = written.get(name, said)
        assert tokenizer.decode(answer, False) == wanted_text + end_of(name)
        assert answer[-1] == tokenizer.special[end_of(name)] == Answers(tokenizer).end_id
        assert not set(answer[:-1]) & set(tokenizer.special.values())
    asked = [{"role": "user", "content": "Where?"}]
    example = cast(Any, SimpleNamespace(prompt="Where?"))
    ((context, after),) = _pairs(chat, example, ["there"], True)
    assert context + after == tokenizer.encode_chat(asked) + tokenizer.encode("there")


def test_a_template_that_rewrites_what_was_said_gives_a_stretch_an_answer():
    assert [len(Answers(with_template(OWN, TEMPLATES[name])).of(TALK)) for name in ("chatml", "qwen3")] == [1, 3]


def test_an_answer_that_begins_as_its_prompt_ends_follows_the_same_prompt():
    tokenizer = with_template(train_tokenizer(["a\n\n\n\nb\n\n\n\n"] * 9, 300), CHATML)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\n\n\nb"}]
    ((prompt, answer),) = prompts(Answers(tokenizer).of(messages))
    assert prompt == tokenizer.encode_chat(messages[:1])
    assert tokenizer.decode(answer, False) == "\n\n\nb<|im_end|>"
    assert [*prompt, *answer] != tokenizer.encode_chat(messages, False)[
        :-1
    ]  # where joining would have moved the prompt


def test_only_answers_to_somebody_that_are_not_left_out_are_learned():
    answers = Answers(with_template(OWN, CHATML))
    messages = [
        {"role": "assistant", "content": "greeting"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two", "learn": False},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
    assert [OWN.decode(answer) for _, answer in prompts(answers.of(messages))] == ["four"]
    assert answers.of(messages[:1]) == []


@given(
    st.lists(st.text(alphabet="ab \n<|im_end|>你", max_size=6), min_size=2, max_size=6),
    st.sampled_from(sorted(TEMPLATES)),
)
def test_whatever_is_said_the_answers_are_found(texts: list[str], name: str):
    tokenizer = with_template(OWN, TEMPLATES[name])
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    learned = prompts(Answers(tokenizer).of(messages))
    assert len(learned) == len(texts) // 2
    for place, (prompt, answer) in enumerate(learned):
        assert prompt == tokenizer.encode_chat(messages[: 2 * place + 1])
        said = tokenizer.decode(answer, False)
        assert messages[2 * place + 1]["content"].strip() in said and said.endswith(end_of(name))


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "does not end the assistant's turn"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "does not show what"),
        (FORGETFUL, "otherwise than its prompt"),
        ("{{ messages[1].content }}{{ messages[0].content }}{{ eos_token }}", "does not show what"),
    ],
)
def test_a_template_whose_answers_cannot_be_found_is_refused(template: str, problem: str):
    with pytest.raises(TokenizerError, match=problem):
        Answers(with_template(OWN, template))


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(TokenizerError, match="no chat template"):
        Answers(Tokenizer(OWN.definition, OWN.config))


def test_tool_calls_are_shown_by_a_template_that_knows_none():
    tokenizer = with_template(OWN, CHATML)
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "北京"}}}
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sun"},
        {"role": "assistant", "content": "It shines."},
    ]
    tools = [{"type": "function", "function": {"name": "weather"}}]
    (one,) = Answers(tokenizer).of(messages, tools)
    assert one.ids == [*tokenizer.encode_chat(messages, False, tools)][: len(one.ids)]
    learned = [tokenizer.decode(answer, False) for _, answer in prompts([one])]
    assert learned == [
        '<tool_call>{"name": "weather", "arguments": {"city": "北京"}}</tool_call><|im_end|>',
        "It shines.<|im_end|>",
    ]


def test_control_tokens_are_added_once_and_change_no_other_id():
    extended = with_control_tokens(OWN, ["<|im_start|>", "<|new|>", "[X]"])
    assert extended.vocab_size == OWN.vocab_size + 2 and extended.special["[X]"] == OWN.vocab_size + 1
    text = "the user said [X] 你好 <|new|>"
    assert extended.encode(text) == OWN.encode(text)
