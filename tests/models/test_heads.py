"""Heads: the same scores as stock transformers both ways, packed texts scored alone, and folders refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bimo.errors import ModelError
from bimo.models import load_model, save_model
from bimo.models.heads import load_classifier, load_encoder, new_classifier, pooled
from tests.models.test_models import CASES, ids_of, trained

LABELS = ["bad", "好", "3"]
NAMES = ["bert", "gpt2", "gpt2-untied", "llama", "mistral-full", "qwen2", "qwen3", "qwen3-untied"]


def moved(model, seed=1):
    """The same with every weight away from where it started."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def base_of(name, tmp_path, **changes):
    save_model(trained(CASES[name] | changes), tmp_path / "base")
    return tmp_path / "base"


def classifier(name, tmp_path, kind="text"):
    folder = base_of(name, tmp_path, **({} if name == "bert" else {"eos_token_id": 0}))
    return moved(new_classifier(folder, LABELS, kind=kind, generator=torch.Generator().manual_seed(0)))


def mark(rows, length, where):
    at = torch.zeros(rows, length, dtype=torch.bool)
    at[:, where] = True
    return at


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_our_classifiers_and_computes_the_same(name, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = classifier(name, tmp_path)
    save_model(model, tmp_path / "out")
    theirs, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.id2label == dict(enumerate(LABELS))
    assert theirs.config.label2id == {label: number for number, label in enumerate(LABELS)}
    ids = ids_of(5, 13).clamp(min=1)  # 0 is the token that pads
    scores = model(ids, mark(5, 13, 0 if name == "bert" else -1))
    assert scores.shape == (5, 3)
    assert torch.allclose(scores, theirs.eval()(ids).logits, atol=1e-5)
    again = load_classifier(tmp_path / "out")
    assert again.labels == tuple(LABELS)
    assert torch.equal(again(ids, mark(5, 13, 0 if name == "bert" else -1)), scores)


@pytest.mark.parametrize("name", ["bert", "gpt2", "qwen3-untied"])
def test_we_read_the_classifiers_that_transformers_writes(name, tmp_path):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(3)
    config = AutoConfig.for_model(**CASES[name], num_labels=5, pad_token_id=0)
    theirs = moved(AutoModelForSequenceClassification.from_config(config))
    theirs.save_pretrained(tmp_path)
    model, ids = load_classifier(tmp_path), ids_of(3, 7).clamp(min=1)
    assert model.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4")
    assert torch.allclose(model(ids, mark(3, 7, 0 if name == "bert" else -1)), theirs(ids).logits, atol=1e-5)


def test_token_labels_are_those_of_transformers(tmp_path):
    from transformers import AutoModelForTokenClassification

    model = classifier("bert", tmp_path, kind="tokens")
    save_model(model, tmp_path / "out")
    theirs, report = AutoModelForTokenClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = ids_of(5, 13)
    scores = model(ids, torch.ones(5, 13, dtype=torch.bool)).view(5, 13, 3)
    assert torch.allclose(scores, theirs.eval()(ids).logits, atol=1e-5)
    assert load_classifier(tmp_path / "out").kind == "tokens"
    with pytest.raises(ModelError, match="too late to label it"):
        new_classifier(base_of("gpt2", tmp_path), LABELS, kind="tokens", generator=torch.Generator())


def test_the_stock_encoder_is_loaded_and_computes_the_same(tmp_path):
    from transformers import AutoConfig, BertModel

    torch.manual_seed(3)
    theirs = moved(BertModel(AutoConfig.for_model(**CASES["bert"])))
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")  # old folders hold this constant, as integers
    save_file(state | {"embeddings.position_ids": torch.arange(32)[None]}, tmp_path / "model.safetensors")
    encoder, ids, types = load_encoder(tmp_path), ids_of(3, 7), torch.tensor([[0] * 3 + [1] * 4] * 3)
    wanted = theirs(ids, token_type_ids=types).last_hidden_state
    assert torch.allclose(encoder.hidden(ids, token_type_ids=types), wanted, atol=1e-5)
    model = new_classifier(tmp_path, LABELS, generator=torch.Generator())
    assert torch.equal(model.bert.pooler.dense.weight, theirs.pooler.dense.weight)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "qwen3"])
def test_packed_texts_are_scored_as_if_alone(name, tmp_path):
    model = classifier(name, tmp_path)
    texts = [ids_of(1, length, seed=length) for length in (2, 3, 5)]
    where = 0 if model.first else -1
    alone = torch.cat([model(text, mark(1, text.shape[1], where)) for text in texts])
    position_ids = torch.tensor([[*range(2), *range(3), *range(5)]])
    at = mark(1, 10, [0, 2, 5] if model.first else [1, 4, 9])
    segments = torch.tensor([[0] * 2 + [1] * 3 + [2] * 5])
    together = model(torch.cat(texts, dim=1), at, position_ids=position_ids, segment_ids=segments)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "qwen3"])
def test_a_new_head_leaves_an_old_one_behind_and_keeps_the_body(name, tmp_path):
    model = classifier(name, tmp_path)
    save_model(model, tmp_path / "out")
    other = new_classifier(tmp_path / "out", ["yes", "no"], generator=torch.Generator().manual_seed(0))
    assert other.head.weight.shape == (2, 24)
    body = {key: value for key, value in model.state_dict().items() if not key.startswith(("classifier", "score"))}
    assert body and all(torch.equal(other.state_dict()[key], value) for key, value in body.items())
    twin = new_classifier(tmp_path / "out", ["yes", "no"], generator=torch.Generator().manual_seed(0))
    assert torch.equal(twin.head.weight, other.head.weight)
    assert all(parameter.requires_grad and parameter.isfinite().all() for parameter in other.parameters())


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_temperature_folds_into_the_head(name, tmp_path):
    model, ids = classifier(name, tmp_path), ids_of(5, 7)
    before = model(ids, mark(5, 7, 0))
    model.divide_scores(2.5)
    assert torch.allclose(model(ids, mark(5, 7, 0)), before / 2.5, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_flops_are_those_that_torch_counts(name, tmp_path):
    from torch.utils.flop_counter import FlopCounterMode

    model = classifier(name, tmp_path)
    with FlopCounterMode(display=False) as counter:
        model.hidden(ids_of(2, 7))
    assert counter.get_total_flops() == pytest.approx(2 * 7 * model.forward_flops(7))


def test_sentence_vectors_are_those_of_the_texts_alone():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 3, generator=generator)
    owner = torch.tensor([[0, 0, 1, 3, 3], [2, 2, 2, 2, 3]])
    texts = [hidden[0, :2], hidden[0, 2:3], hidden[1, :4]]
    for pooling, of_one in (("mean", lambda text: text.mean(dim=0)), ("first", lambda text: text[0])):
        wanted = torch.stack([torch.nn.functional.normalize(of_one(text), dim=0) for text in texts])
        assert torch.allclose(pooled(hidden, owner, 3, pooling), wanted, atol=1e-6)


def test_folders_that_do_not_fit_are_refused_by_name(tmp_path):
    base = base_of("bert", tmp_path)
    with pytest.raises(ModelError, match="does not classify"):
        load_classifier(base)
    with pytest.raises(ModelError, match="encoder, which does not write"):
        load_model(base)
    save_model(new_classifier(base, LABELS, generator=torch.Generator()), tmp_path / "out")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(values | {"id2label": {"0": "a", "2": "b"}}))
    with pytest.raises(ModelError, match="labels in .* are wrong"):
        load_classifier(tmp_path / "out")
    save_model(classifier("gpt2", tmp_path / "gpt2"), tmp_path / "decoder")
    with pytest.raises(ModelError, match="not a language model"):
        load_model(tmp_path / "decoder")
    for labels in ([], ["one"], ["one", "two", "one"]):
        with pytest.raises(ModelError, match="labels are wrong"):
            new_classifier(base, labels, generator=torch.Generator())
