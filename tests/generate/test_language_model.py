"""Text in, text out: folders written by transformers, and folders that look like bimo's own runs."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bimo.errors import ModelError, RunError, UsageError
from bimo.generate import scoring
from bimo.generate.conversation import Conversation
from bimo.generate.language_model import LanguageModel, load
from bimo.tokenizer.train import train_tokenizer

TEXT = "To be, or not to be: that is the question. 话说天下大势，分久必合，合久必分。" * 3
CHAT = [{"role": "user", "content": "to be?"}]


def write_folder(folder: Path, *, kind: str | None = None, template: bool = True, spread: float = 0.1) -> Path:
    tokenizer = train_tokenizer([TEXT], 300)
    if not template:
        tokenizer.chat_template = None
    tokenizer.save(folder)
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size + 7,  # padded, as vocabularies of published models are
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=96,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=spread)
    model.save_pretrained(folder)
    if kind is not None:
        (folder / "lineage.json").write_text(json.dumps({"kind": kind}))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(write_folder(tmp_path_factory.mktemp("base"), kind="base"))


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(write_folder(tmp_path_factory.mktemp("chat")))


def drain(stream: Any) -> tuple[list[str], Any]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def test_the_call_that_fails_elsewhere_works(base: LanguageModel) -> None:
    results = base.generate("To be", max_length=50, num_return_sequences=5)
    assert len(results) == 5 and len(set(results)) == 5
    prompt = 1 + len(base.tokenizer.encode("To be"))
    assert all(len(result.ids) <= 50 - prompt and len(result.ids) == len(result.logprobs) for result in results)
    assert str(results) == "\n---\n".join(results)


def test_each_completion_can_be_repeated_alone(base: LanguageModel) -> None:
    for result in base.generate("To be", n=3, max_new_tokens=11):
        (again,) = base.generate("To be", seed=result.seed, max_new_tokens=11)
        assert (again, again.ids, again.seed) == (result, result.ids, result.seed)


def test_stream_joins_to_what_generate_gives(base: LanguageModel) -> None:
    options = {"seed": 3, "max_new_tokens": 40, "temperature": 1.2}
    (whole,) = base.generate("合久", **options)
    pieces, last = drain(base.stream("合久", **options))
    assert "".join(pieces) == whole == last and last.ids == whole.ids and all(pieces)
    ids = [id for id in whole.ids if id not in base.tokenizer.special.values()]
    assert whole == base.tokenizer.decode_bytes(ids).decode("utf-8", errors="replace")


def test_a_stop_string_ends_the_text_before_itself(base: LanguageModel) -> None:
    options = {"seed": 8, "max_new_tokens": 30, "temperature": 1.0}
    (free,) = base.generate("To be", **options)
    stop = free[9:13]
    (cut,) = base.generate("To be", stop=stop, **options)
    assert cut == free[: free.index(stop)] and cut.finish_reason == "stop" and len(cut.ids) < len(free.ids)
    pieces, last = drain(base.stream("To be", stop=[stop], **options))
    assert "".join(pieces) == cut == last


def test_rows_stop_each_at_its_own_place(base: LanguageModel) -> None:
    free = base.generate("To be", n=4, seed=1, max_new_tokens=30)
    cut = base.generate("To be", n=4, seed=1, max_new_tokens=30, stop=["e", "o"])
    assert [min(text.find(stop) % 999 for stop in "eo") for text in free] != [999] * 4
    for whole, part in zip(free, cut, strict=True):
        assert whole.startswith(part) and not set("eo") & set(part)


def test_logprob_counts_every_token_after_the_start(base: LanguageModel) -> None:
    ids = torch.tensor([[base.tokenizer.eos_id, *base.tokenizer.encode(TEXT[:50])]])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base.path)
    with torch.inference_mode():
        logprobs = theirs(ids).logits.log_softmax(-1)[0, :-1]
    expected = logprobs.gather(1, ids[0, 1:, None])[:, 0]
    table = base.token_logprobs(TEXT[:50])
    torch.testing.assert_close(torch.tensor([row.logprob for row in table]), expected, atol=1e-4, rtol=1e-4)
    assert [row.id for row in table] == ids[0, 1:].tolist()
    ranks = (logprobs.argsort(descending=True) == ids[0, 1:, None]).nonzero()[:, 1] + 1
    assert [row.rank for row in table] == ranks.tolist()
    assert "".join(row.text for row in table[:10]) == TEXT[: sum(len(row.text) for row in table[:10])]
    assert [row.text for row in base.token_logprobs("é")] == [r"\xc3", r"\xa9"]  # halves of a character
    assert math.isclose(base.logprob(TEXT[:50]), float(expected.sum()), rel_tol=1e-4)
    assert base.logprob("") == 0.0


def test_text_longer_than_the_context_is_scored_whole(base: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    table = base.token_logprobs(TEXT * 2)
    ids = [base.tokenizer.eos_id, *(row.id for row in table)]
    context = base.model.config.max_position_embeddings
    assert len(ids) > 2 * context
    # The last token of the second window sees half of the first window and all of its own.
    end = context + context // 2
    with torch.inference_mode():
        seen = torch.tensor([ids[end - context : end]])
        expected = base.model(seen)[0, -1].log_softmax(-1)[ids[end]]
    assert math.isclose(table[end - 1].logprob, float(expected), abs_tol=1e-4)
    monkeypatch.setattr(scoring, "CHUNK", 7)
    again = base.token_logprobs(TEXT * 2)
    assert all(math.isclose(a.logprob, b.logprob, abs_tol=1e-4) for a, b in zip(table, again, strict=True))


def test_prompts_begin_as_the_folder_says(base: LanguageModel, tmp_path: Path) -> None:
    eos = base.tokenizer.eos_id
    assert base.prompt_ids("To") == [eos, *base.tokenizer.encode("To")] and base.prompt_ids("") == [eos]
    folder = write_folder(tmp_path)
    plain = load(folder)
    assert plain.prompt_ids("To") == transformers.AutoTokenizer.from_pretrained(folder)("To").input_ids
    assert plain.prompt_ids("") == [eos]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"bos_token": "<|im_start|>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    begun = load(folder)
    bos = begun.tokenizer.special["<|im_start|>"]
    assert begun.prompt_ids("To") == [bos, *begun.tokenizer.encode("To")] and begun.prompt_ids("") == [bos]
    assert begun.generate("", max_new_tokens=2)[0].finish_reason in ("stop", "length")


def test_a_prompt_cannot_spell_a_control_token(base: LanguageModel) -> None:
    assert base.prompt_ids("<|endoftext|><|im_end|>").count(base.tokenizer.eos_id) == 1
    assert not set(base.prompt_ids("<|im_end|>")[1:]) & set(base.tokenizer.special.values())


def test_end_tokens_come_from_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    conventions = load(folder).conventions
    assert conventions.ends == {0, 7, 9} and conventions.turn_ends == {0, 2, 7, 9}


def test_chat_reads_the_template_and_ends_at_the_turns_end(chatty: LanguageModel) -> None:
    stock = transformers.AutoTokenizer.from_pretrained(chatty.path)
    ids = stock.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert chatty.chat_ids(CHAT) == ids
    answer = chatty.chat(CHAT, seed=1, max_new_tokens=20)
    pieces, last = drain(chatty.stream_chat(CHAT, seed=1, max_new_tokens=20))
    assert "".join(pieces) == answer == last
    end = chatty.tokenizer.special["<|im_end|>"]
    with torch.no_grad():
        chatty.model.output_weight[end] += 50 * chatty.model.hidden(torch.tensor([ids]))[0, -1]
    try:
        answer = chatty.chat(CHAT, max_new_tokens=20, temperature=0)
        assert answer == "" and answer.ids == (end,) and answer.finish_reason == "stop"
    finally:
        fresh = load(chatty.path).model.output_weight
        with torch.no_grad():
            chatty.model.output_weight.copy_(fresh)


def test_a_base_model_and_one_without_template_say_why_they_do_not_chat(base: LanguageModel, tmp_path: Path) -> None:
    for call in (base.chat, base.stream_chat):
        with pytest.raises(RunError, match=r"base model.*bimo generate"):
            call(CHAT)
    with pytest.raises(RunError, match="base model"):
        Conversation(base)
    with pytest.raises(RunError, match=r"no chat template.*bimo generate"):
        load(write_folder(tmp_path / "bare", template=False)).chat(CHAT)
    assert load(write_folder(tmp_path / "tuned", kind="chat")).chat(CHAT, max_new_tokens=1).ids


def test_conversation_remembers_and_forgets_the_oldest(chatty: LanguageModel) -> None:
    talk = Conversation(chatty, system="be")
    first = "".join(talk.say("to be", max_new_tokens=8, seed=1))
    assert [message["role"] for message in talk.messages] == ["system", "user", "assistant"]
    assert talk.messages[2]["content"] == first and talk.dropped == 0
    for seed in range(6):
        "".join(talk.say("or not", max_new_tokens=8, seed=seed))
        assert len(chatty.tokenizer.encode_chat(talk.messages[:-1])) <= 96 - 8
    assert talk.dropped > 0 and talk.dropped % 2 == 0
    assert talk.messages[0] == {"role": "system", "content": "be"} and talk.messages[1]["role"] == "user"
    before = list(talk.messages)
    with pytest.raises(UsageError, match="too long"):
        talk.say("question " * 96)
    with pytest.raises(UsageError, match="Unknown option"):
        talk.say("to be", sed=1)
    assert talk.messages == before


def test_a_reply_broken_off_stays_in_the_history(chatty: LanguageModel) -> None:
    talk = Conversation(chatty)
    reply = talk.say("to be", max_new_tokens=30, seed=4)
    heard = "".join(itertools.islice(reply, 3))
    reply.close()  # type: ignore[attr-defined]
    assert talk.messages[-1] == {"role": "assistant", "content": heard} and heard


def test_wrong_calls_are_refused_before_anything_is_generated(base: LanguageModel) -> None:
    for call in (base.generate, base.stream):
        with pytest.raises(UsageError, match="too long"):
            call("to be " * 96)
        with pytest.raises(UsageError, match="Expected a text"):
            call(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Only one text"):
        base.stream("to be", n=2)
    with pytest.raises(UsageError, match="all the same"):
        base.generate("to be", n=2, temperature=0)


def test_folders_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="Did you mean 'float32'"):
        load(tmp_path, dtype="float23")
    folder = write_folder(tmp_path / "mixed")
    train_tokenizer([TEXT + "to be or not " * 50 + "".join(map(chr, range(300, 900))) * 2], 900).save(folder)
    with pytest.raises(ModelError, match=r"do not fit.*at most"):
        load(folder)


@pytest.mark.parametrize("features", ["sse2 avx2", "avx512_bf16 amx_bf16", "asimd bf16"])
def test_dtype_follows_the_folder_where_the_processor_is_fast_at_it(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bimo.device.processor_features", lambda: frozenset(features.split()))
    folder = write_folder(tmp_path)
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    brief = torch.bfloat16 if "bf16" in features else torch.float32
    for stored, used in ((torch.bfloat16, brief), (torch.float16, torch.float32)):
        model.to(stored).save_pretrained(folder)
        loaded = load(folder, device="cpu")
        assert loaded.model.output_weight.dtype == used
        assert loaded.generate("To be", max_new_tokens=3)[0].ids
        assert load(folder, device="cpu", dtype="stored").model.output_weight.dtype == stored
    assert load(folder, device="cpu", dtype="bfloat16").model.output_weight.dtype == torch.bfloat16
