"""Short chat templates in the formats of the families that bimo loads, written for these tests."""

from __future__ import annotations

from bimo.tokenizer.chat import CHATML
from bimo.tokenizer.extend import with_control_tokens
from bimo.tokenizer.tokenizer import Tokenizer

QWEN2 = """\
{%- if messages[0]['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
# Thoughts stand only before answers that come after the last question; earlier ones lose theirs.
QWEN3 = """\
{%- set ns = namespace(last=0) -%}
{%- for m in messages if m.role == 'user' -%}{%- set ns.last = ns.last + 1 -%}{%- endfor -%}
{%- set at = namespace(user=0) -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set at.user = at.user + 1 -%}{%- endif -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' and at.user == ns.last -%}
{{- '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
LLAMA3 = """\
{{- bos_token -}}
{%- for m in messages -%}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""
MISTRAL = """\
{{- bos_token -}}
{%- set start = 1 if messages[0].role == 'system' else 0 -%}
{%- for m in messages[start:] -%}
{%- if m.role == 'user' -%}
{{- '[INST] ' + (messages[0].content + '\\n\\n' if start and loop.first else '') + m.content + ' [/INST]' -}}
{%- elif m.role == 'assistant' -%}
{{- ' ' + m.content + eos_token -}}
{%- else -%}{{- raise_exception('only user and assistant') -}}{%- endif -%}
{%- endfor -%}
"""
SMOLLM2 = """\
{%- for m in messages -%}
{%- if loop.first and m['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a small model.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
ZEPHYR = """\
{%- for m in messages -%}
{{- '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""
NO_SYSTEM = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{{- raise_exception('no system role') -}}{%- endif -%}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim -}}
{{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
LLAMA2 = """\
{%- set start = 1 if messages[0].role == 'system' else 0 -%}
{%- for m in messages[start:] -%}
{%- if m.role == 'user' -%}
{{- bos_token + '[INST] ' -}}
{%- if start and loop.first -%}{{- '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' -}}{%- endif -%}
{{- m.content | trim + ' [/INST]' -}}
{%- else -%}{{- ' ' + m.content | trim + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}
"""
GEMMA = """\
{{- bos_token -}}
{%- set start = 1 if messages[0].role == 'system' else 0 -%}
{%- for m in messages[start:] -%}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\\n' -}}
{%- if start and loop.first -%}{{- messages[0].content + '\\n\\n' -}}{%- endif -%}
{{- m.content | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
PHI3 = """\
{%- for m in messages -%}
{{- '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' -}}
{%- endfor -%}
{{- '<|assistant|>\\n' if add_generation_prompt else eos_token -}}
"""
PHI4 = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|im_sep|>' -}}{%- endif -%}
"""
DEEPSEEK = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{{- m.content -}}
{%- elif m.role == 'user' -%}{{- '<｜User｜>' + m.content -}}
{%- else -%}{{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}
"""
TEMPLATES = {
    "llama2": LLAMA2,
    "gemma": GEMMA,
    "phi3": PHI3,
    "phi4": PHI4,
    "deepseek": DEEPSEEK,
    "chatml": CHATML,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "smollm2": SMOLLM2,
    "zephyr": ZEPHYR,
    "no-system": NO_SYSTEM,
}
CONTROL = (
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]",
    "<start_of_turn>", "<end_of_turn>", "<|im_sep|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>",
    "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
END = {"llama3": "<|eot_id|>", "mistral": "<|endoftext|>", "zephyr": "<|endoftext|>", "no-system": "<end_of_turn>"}
END |= {"llama2": "<|endoftext|>", "gemma": "<end_of_turn>", "phi3": "<|end|>", "deepseek": "<｜end▁of▁sentence｜>"}


def end_of(name: str) -> str:
    """The token that ends a turn in a template."""
    return END.get(name, "<|im_end|>")


def with_template(tokenizer: Tokenizer, template: str) -> Tokenizer:
    """A tokenizer with all control tokens of the families and this template."""
    extended = with_control_tokens(tokenizer, CONTROL)
    config = {**extended.config, "bos_token": "<|endoftext|>"}
    return Tokenizer(extended.definition, config, template)
