"""A Llama, Mistral, Qwen2 or Qwen3 as an OpenVINO graph whose keys and values lie in pages.

The graph is written with attention over a state, as OpenVINO's own converter would write it; OpenVINO then turns the
state into pages. Shapes are those of ``llama.py``; here B is N new positions of any sequences and T is 1.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bimo.errors import UsageError
from bimo.models import llama

OPSET = "openvino.opset13"
INT8_MOST = 127
WINDOW_INPUT = 10  # of the attention over pages


def require_openvino() -> Any:
    """The library.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("openvino")
    except ImportError:
        fix = "Install it: pip install 'bimo[openvino]'"
        raise UsageError("OpenVINO is not installed.", got="no openvino", fix=fix) from None


def paged_graph(model: llama.Model, *, int8: bool) -> Any:
    """The graph of ``model``, an ``openvino.Model``.

    Inputs are ``input_ids`` and ``position_ids`` int64 (N,), what OpenVINO wants to know of pages, and the rows of
    which something is wanted: ``logit_rows`` and ``hidden_rows`` int32 (R,). Outputs are ``logits`` (R, 1, V) and
    ``hidden`` (R, 1, C), after the last norm.

    Args:
        int8: keep the matrices as whole numbers of 8 bits, with a scale for each output.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    graph = _Graph(model, int8).build()
    importlib.import_module("openvino._offline_transformations").paged_attention_transformation(graph)
    if model.config.sliding_window is not None:
        window = importlib.import_module(OPSET).constant(np.int32(model.config.sliding_window)).output(0)
        for node in graph.get_ops():
            if node.get_type_name() == "PagedAttentionExtension":
                node.input(WINDOW_INPUT).replace_source_output(window)
    return graph


class _Graph:
    def __init__(self, model: llama.Model, int8: bool) -> None:
        self.op: Any = importlib.import_module(OPSET)
        self.model, self.config, self.int8 = model, model.config, int8
        self.sinks: list[Any] = []

    def build(self) -> Any:
        op, config = self.op, self.config
        ids, positions, mask = (
            self._input(name, [-1, -1], np.int64) for name in ("input_ids", "position_ids", "attention_mask")
        )
        self.beams = self._input("beam_idx", [-1], np.int32)
        logit_rows, hidden_rows = (self._input(name, [-1], np.int32) for name in ("logit_rows", "hidden_rows"))
        self.batch = op.gather(op.shape_of(ids), _ints(op, 0), op.constant(np.int64(0)))
        self.mask = op.unsqueeze(op.unsqueeze(op.convert(mask, np.float32), _ints(op, 1)), _ints(op, 1))
        self._turn(positions)
        table = self._matrix(self.model.model.embed_tokens.weight)
        x = op.gather(table, op.convert(ids, np.int32), op.constant(np.int32(0)))  # (B, T, C)
        layer: Any
        for index, layer in enumerate(self.model.model.layers):
            x = op.add(x, self._attention(self._norm(x, layer.input_layernorm), layer.self_attn, index))
            x = op.add(x, self._mlp(self._norm(x, layer.post_attention_layernorm), layer.mlp))
        head = table if config.tie_word_embeddings else self._matrix(self.model.output_weight)
        hidden, states = (
            self._norm(op.gather(x, rows, op.constant(np.int32(0))), self.model.model.norm)
            for rows in (hidden_rows, logit_rows)
        )
        outputs = {"hidden": hidden, "logits": op.matmul(states, head, False, True)}
        for name, output in outputs.items():
            output.output(0).set_names({name})
        inputs = [ids, positions, mask, self.beams, logit_rows, hidden_rows]
        return require_openvino().Model([op.result(output) for output in outputs.values()], self.sinks, inputs)

    def _input(self, name: str, shape: list[int], kind: type) -> Any:
        node = self.op.parameter(shape, kind, name=name)
        node.output(0).set_names({name})
        return node

    def _turn(self, positions: Any) -> None:
        """Compute cosine and sine of all angles, fp32 (B, 1, T, D)."""
        op = self.op
        frequencies = _numbers(op, llama.rotary_frequencies(self.config, torch.device("cpu")))  # (D/2,)
        place = op.unsqueeze(op.unsqueeze(op.convert(positions, np.float32), _ints(op, 1)), _ints(op, 3))
        angles = op.multiply(place, frequencies)  # (B, 1, T, D/2)
        angles = op.concat([angles, angles], -1)
        self.cos, self.sin = op.cos(angles), op.sin(angles)

    def _rotate(self, x: Any) -> Any:
        """As :func:`bimo.models.llama.rotate`."""
        op = self.op
        first, second = op.split(x, op.constant(np.int64(-1)), 2).outputs()
        turned = op.concat([op.negative(second), first], -1)
        return op.add(op.multiply(x, self.cos), op.multiply(turned, self.sin))

    def _matrix(self, weight: Tensor) -> Any:
        op = self.op
        if not self.int8:
            return _numbers(op, weight)
        scale = weight.float().abs().amax(1, keepdim=True) / INT8_MOST  # (out, 1)
        scale[scale == 0] = 1
        whole = (weight.float() / scale).round().to(torch.int8)
        return op.multiply(op.convert(op.constant(whole.numpy()), np.float32), _numbers(op, scale))

    def _linear(self, x: Any, linear: llama.Linear) -> Any:
        y = self.op.matmul(x, self._matrix(linear.weight), False, True)
        return y if linear.bias is None else self.op.add(y, _numbers(self.op, linear.bias))

    def _norm(self, x: Any, norm: nn.Module) -> Any:
        if not isinstance(norm, llama.RMSNorm):
            return x
        op, one = self.op, self.op.constant(np.float32(1))
        squares = op.reduce_mean(op.power(x, op.constant(np.float32(2))), _ints(op, -1), True)
        size = op.sqrt(op.add(squares, op.constant(np.float32(norm.eps))))
        return op.multiply(_numbers(op, norm.weight), op.multiply(x, op.divide(one, size)))

    def _attention(self, x: Any, layer: llama.Attention, index: int) -> Any:
        op, config = self.op, self.config
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        order = _ints(op, 0, 2, 1, 3)
        q, k, v = (
            op.reshape(self._linear(x, part), _ints(op, 0, 0, heads, D), True)  # (B, T, heads, D)
            for part, heads in ((layer.q_proj, H), (layer.k_proj, K), (layer.v_proj, K))
        )
        q = self._rotate(op.transpose(self._norm(q, layer.q_norm), order))  # (B, H, T, D)
        k = self._rotate(op.transpose(self._norm(k, layer.k_norm), order))  # (B, K, T, D)
        k, v = self._extend(k, f"{index}.key"), self._extend(op.transpose(v, order), f"{index}.value")  # (B, K, S, D)
        if self.config.num_key_value_heads != self.config.num_attention_heads:
            k, v = self._repeat(k), self._repeat(v)  # (B, H, S, D)
        y = op.transpose(op.scaled_dot_product_attention(q, k, v, self.mask), order)
        return self._linear(op.reshape(y, _ints(op, 0, 0, H * D), True), layer.o_proj)

    def _extend(self, new: Any, name: str) -> Any:
        """Put ``new`` behind a state, which OpenVINO replaces by pages."""
        op, config = self.op, self.config
        K, D = config.num_key_value_heads, config.head_dim
        empty = op.broadcast(op.constant(np.float32(0)), op.concat([self.batch, _ints(op, K, 0, D)], 0))
        past = op.read_value(empty, f"past_key_values.{name}", np.float32, [-1, K, -1, D])
        full = op.concat([op.gather(past, self.beams, op.constant(np.int32(0))), new], 2)
        self.sinks.append(op.assign(full, f"past_key_values.{name}"))
        return full

    def _repeat(self, x: Any) -> Any:
        op, config = self.op, self.config
        groups = config.num_attention_heads // config.num_key_value_heads
        shape = functools.partial(op.gather, op.shape_of(x), axis=op.constant(np.int64(0)))
        wide = op.concat([shape(_ints(op, 0, 1)), _ints(op, groups), shape(_ints(op, 2, 3))], 0)
        x = op.broadcast(op.unsqueeze(x, _ints(op, 2)), wide, "BIDIRECTIONAL")
        return op.reshape(x, _ints(op, 0, config.num_attention_heads, -1, config.head_dim), True)

    def _mlp(self, x: Any, layer: llama.MLP) -> Any:
        gate, up = self._linear(x, layer.gate_proj), self._linear(x, layer.up_proj)
        return self._linear(self.op.multiply(self.op.swish(gate), up), layer.down_proj)


def _ints(op: Any, *values: int) -> Any:
    return op.constant(np.array(values, np.int64))


def _numbers(op: Any, values: Tensor) -> Any:
    return op.constant(values.detach().float().cpu().numpy())
