"""A sentence encoder: texts to vectors whose dot product says how alike they are.

Shapes: N texts, C the model's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bimo import files
from bimo.batches.texts import batches_of, encoded
from bimo.errors import ModelError
from bimo.models import bert
from bimo.models.heads import Pooling, load_encoder, pooled
from bimo.tokenizer.tokenizer import Tokenizer


class SentenceEncoder:
    """An encoder, its tokenizer, and how the states of the tokens become one vector.

    Args:
        longest: tokens of a text that are read, those around it included; the rest is left out.

    Attributes:
        width: C.
    """

    def __init__(self, model: bert.Base, tokenizer: Tokenizer, pooling: Pooling, longest: int) -> None:
        self.model, self.tokenizer, self.pooling, self.longest = model.eval(), tokenizer, pooling, longest
        self.width: int = model.config.hidden_size

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of length 1, (N, C), in the order of the texts."""
        return self.vectors_of(encoded(self.tokenizer, texts, self.longest))

    @torch.inference_mode()
    def vectors_of(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The same of ids, those around each text included."""
        vectors = np.zeros((len(ids), self.width), dtype=np.float32)
        device = self.model.output_weight.device
        for batch in batches_of(ids):
            inputs, segments = batch.input_ids.to(device), batch.segment_ids.to(device)
            count = len(batch.places)
            owners = torch.where(segments == 0, torch.arange(count, device=device)[:, None], count)
            hidden = self.model.hidden(inputs, segment_ids=segments)
            vectors[batch.places] = pooled(hidden, owners, count, self.pooling).cpu().numpy()
        return vectors


def load_sentence_encoder(
    folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> SentenceEncoder:
    """Load a folder of a supported encoder; how it pools is read where sentence-transformers keeps it, else the mean.

    Raises:
        ModelError: the folder holds no encoder, or one that pools in another way than first token or mean.
        TokenizerError: it holds no tokenizer.
    """
    folder = Path(folder)
    model, tokenizer = load_encoder(folder, device=device, dtype=dtype), Tokenizer.load(folder)
    pooling = _pooling(folder)
    settings = _optional(folder / "sentence_bert_config.json").get("max_seq_length")
    longest = model.config.max_position_embeddings
    return SentenceEncoder(model, tokenizer, pooling, min(longest, settings) if isinstance(settings, int) else longest)


def _pooling(folder: Path) -> Pooling:
    values = _optional(folder / "1_Pooling" / "config.json")
    modes = [name for name, on in values.items() if name.startswith("pooling_mode_") and on is True]
    if modes in ([], ["pooling_mode_mean_tokens"]):
        return "mean"
    if modes == ["pooling_mode_cls_token"]:
        return "first"
    raise ModelError(f"{folder} pools in another way.", expected="the mean or the first token", got=", ".join(modes))


def _optional(path: Path) -> dict[str, Any]:
    return files.read_json(path, error=ModelError) if path.is_file() else {}
