"""llama.cpp through its own C interface: sequences decoded together, the likeliest token of each by its own sampler."""

from __future__ import annotations

import sys
from pathlib import Path

import llama_cpp

from benchmarks.serving.answering import Answer
from benchmarks.serving.cells import LONG_PROMPT, NEW, PROMPT, TOGETHER

BATCH = 512  # positions of one call


def quantise(source: Path, target: Path, precision: str) -> None:
    """Write a GGUF file in another precision."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.allow_requantize, settings.nthread = True, 2
    settings.ftype = {"BF16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}[precision]
    if llama_cpp.llama_model_quantize(bytes(source), bytes(target), settings):
        raise SystemExit(f"llama.cpp cannot write {target.name}")


def load(path: Path, precision: str, threads: int) -> tuple[Answer, int]:
    """A GGUF file, which is in ``precision`` already."""
    llama_cpp.llama_backend_init()
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, None)
    model = llama_cpp.llama_model_load_from_file(bytes(path), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    longest = max(LONG_PROMPT + 1, PROMPT + NEW)
    settings.n_seq_max, settings.n_ctx = max(TOGETHER), max(TOGETHER) * (-(-longest // 256) * 256)
    settings.n_batch = settings.n_ubatch = BATCH
    settings.n_threads = settings.n_threads_batch = threads
    settings.kv_unified = False  # the faster way for sequences that share nothing
    context = llama_cpp.llama_init_from_model(model, settings)
    memory, greedy = llama_cpp.llama_get_memory(context), llama_cpp.llama_sampler_init_greedy()
    batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def decode(entries: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Compute (sequence, position, token, wanted) rows; returns the next token of the sequences that want one."""
        drawn = {}
        for first in range(0, len(entries), BATCH):
            part = entries[first : first + BATCH]
            batch.n_tokens = len(part)
            for row, (sequence, position, token, wanted) in enumerate(part):
                batch.token[row], batch.pos[row], batch.logits[row] = token, position, wanted
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
            if llama_cpp.llama_decode(context, batch):
                raise SystemExit("llama.cpp could not decode")
            for row, (sequence, _, _, wanted) in enumerate(part):
                if wanted:
                    drawn[sequence] = llama_cpp.llama_sampler_sample(greedy, context, row)
        return drawn

    def answer(prompts: list[list[int]], new: int) -> None:
        llama_cpp.llama_memory_clear(memory, False)
        length = len(prompts[0])
        rows = [(s, p, t, p == length - 1) for s, prompt in enumerate(prompts) for p, t in enumerate(prompt)]
        drawn = decode(rows)
        for step in range(new - 1):
            drawn = decode([(sequence, length + step, token, True) for sequence, token in drawn.items()])
        assert len(drawn) == len(prompts)

    keep = silent, model  # what C has addresses of
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    answer.__dict__["keep"] = keep
    return answer, llama_cpp.llama_vocab_n_tokens(vocabulary)


if __name__ == "__main__":
    quantise(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
