"""A text classifier ready for use: texts to the probability of each class.

Shapes: N texts, L classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bimo.batches.texts import batches_of, encoded
from bimo.errors import ModelError
from bimo.models.heads import Classifier, load_classifier
from bimo.tokenizer.tokenizer import Tokenizer


class TextClassifier:
    """A model with a head, and its tokenizer.

    Attributes:
        labels: the names of the classes, in the order of the probabilities.
        longest: tokens of a text that are read, those around it included; the rest is left out.
    """

    def __init__(self, model: Classifier, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer, self.labels = model.eval(), tokenizer, model.labels
        self.longest: int = model.config.max_position_embeddings

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Of each class, (N, L), in the order of the texts; a text without a token is as likely of any class."""
        return self.probabilities_of(encoded(self.tokenizer, texts, self.longest))

    @torch.inference_mode()
    def probabilities_of(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The same of ids, those around each text included."""
        known = [place for place, text in enumerate(ids) if text]
        found = np.full((len(ids), len(self.labels)), 1 / len(self.labels), dtype=np.float32)
        device = self.model.output_weight.device
        for batch in batches_of([ids[place] for place in known]):
            at = (batch.first if self.model.first else batch.last).to(device)
            scores = self.model(batch.input_ids.to(device), at, segment_ids=batch.segment_ids.to(device))
            found[[known[place] for place in batch.places]] = scores.softmax(dim=-1).cpu().numpy()
        return found

    def classify(self, texts: Sequence[str]) -> list[str]:
        """The likeliest class of each text."""
        return [self.labels[number] for number in self.probabilities(texts).argmax(axis=1)]


def load_text_classifier(
    folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> TextClassifier:
    """Load a run of `bimo tune classify`, or a Hugging Face folder of a supported family with a head for whole texts.

    Raises:
        ModelError: the folder holds no such model.
        TokenizerError: it holds no tokenizer.
    """
    model = load_classifier(folder, device=device, dtype=dtype)
    if model.kind != "text":
        expected, fix = "a model that classifies whole texts", f'Use it with: bimo classify {folder} "TEXT"'
        raise ModelError(f"{folder} labels the words of a text.", expected=expected, got=model.kind, fix=fix)
    return TextClassifier(model, Tokenizer.load(folder))
