"""The policy of the template papers: an LSTM that makes one decision of a search space a step.

After the authors' code; both papers (Nekrasov et al., CVPR 2019 and WACV 2020) have it. NumPy with gradients written
out: a policy is many small products one after the other, and a graph of them takes longer to compile than to run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nas_seg.search.space import SearchSpace
from nas_seg.template.genotype import NUM_ENCODER_MAPS
from nas_seg.template.space import TemplateSpace
from nas_seg.utils.errors import InputError, unknown

BLIND, AUTOREGRESSIVE = MODES = ("blind", "autoregressive")
HIDDEN, LSTM_LAYERS, INIT_RANGE = 100, 2, 0.1  # The authors' code.
# A logit of a choice that a decision does not have: its probability is exactly 0.
_NEVER = -1e9

# Kind of a space -> steps before the first decision, and pattern of decisions that share a head -> its name. What no
# pattern matches has the default: names that are equal but for their first number.
_LAYOUTS: dict[str, tuple[int, Mapping[str, str]]] = {
    TemplateSpace.KIND: (NUM_ENCODER_MAPS, {r"t\d+_op[12]": "op"}),
}

Weights = dict[str, np.ndarray]


def warmup_steps(space: SearchSpace) -> int:
    """Steps of the LSTM before its first decision: in template networks one for each map of the encoder, else none."""
    return _LAYOUTS.get(space.KIND, (0, {}))[0]


def heads(space: SearchSpace) -> tuple[int, ...]:
    """The number of the head that makes each decision, counted from 0 as they come.

    Decisions of one meaning share a head: those of the same choices whose names differ in their first number alone
    (b0_op, b1_op), or that the layout of the space puts together (t0_op1, t0_op2). So the inputs of layers have a
    head each, for each layer has a longer list of them.
    """
    patterns = _LAYOUTS.get(space.KIND, (0, {}))[1]

    def meaning(name: str) -> str:
        known = (head for pattern, head in patterns.items() if re.fullmatch(pattern, name))
        return next(known, None) or re.sub(r"\d+", "#", name, count=1)

    keys = [(meaning(name), labels) for name, labels in zip(space.names, space.labels, strict=True)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return tuple(numbers[key] for key in keys)


class Evaluation(NamedTuple):
    """What a controller says of vectors.

    Attributes:
        log_probs: [B] in nats.
        entropies: [B] in nats, the sum of those of the decisions on each vector's way. In mode "blind" that is the
            entropy of the policy, the same for every vector; else the mean over drawn vectors is.
        pull_back: d/d log_probs [B] and d/d entropies [B] of a number -> its gradient in the weights.
    """

    log_probs: np.ndarray
    entropies: np.ndarray
    pull_back: Callable[[np.ndarray, np.ndarray], Weights]


@dataclasses.dataclass(frozen=True)
class Controller:
    """A family of distributions over the vectors of a search space; which one, the weights say.

    A learned vector enters the LSTM, whose output enters it again in the steps before the first decision. Then each
    step makes a decision by the linear head of it. What enters next is the LSTM's own output (mode "blind": decisions
    are independent of one another, as in the authors' code) or the embedding of the choice ("autoregressive").
    A decision with a single choice costs a step too.

    Attributes:
        num_choices: of each decision.
        heads: number of the head of each decision; those of one head have as many choices.
        warmup_steps: steps before the first decision.
        mode: of `MODES`.
        hidden: units of each of the two layers.
    """

    num_choices: tuple[int, ...]
    heads: tuple[int, ...]
    warmup_steps: int = 0
    mode: str = AUTOREGRESSIVE
    hidden: int = HIDDEN

    def __post_init__(self):
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)

    @classmethod
    def of(cls, space: SearchSpace, mode: str = AUTOREGRESSIVE, hidden: int = HIDDEN) -> Controller:
        """The controller of a space."""
        return cls(space.num_choices, heads(space), warmup_steps(space), mode, hidden)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the weights. Gates are in the order input, forget, cell, output; heads of fewer choices are padded."""
        number, most, h = max(self.heads) + 1, max(self.num_choices), self.hidden
        shapes: dict[str, tuple[int, ...]] = {"start": (h,)}
        for layer in range(LSTM_LAYERS):
            shapes |= {f"kernel{layer}": (4, 2 * h, h), f"bias{layer}": (4, 1, h)}
        shapes |= {"head_kernel": (number, h, most), "head_bias": (number, most)}
        return shapes | ({} if self.mode == BLIND else {"embedding": (number, most, h)})

    def initial(self, rng: np.random.Generator) -> Weights:
        """Weights uniform in [-0.1, 0.1], float32: nearly the uniform policy."""
        uniform = {name: rng.uniform(-INIT_RANGE, INIT_RANGE, shape) for name, shape in self.shapes.items()}
        return {name: value.astype(np.float32) for name, value in uniform.items()}

    def sample(self, weights: Weights, rng: np.random.Generator, count: int, temperature: float = 1.0) -> np.ndarray:
        """Vectors int64 [count, n] drawn from the policy; above 1 the temperature brings it nearer to uniform."""
        uniform = rng.random((count, len(self.num_choices), 1))

        def choose(decision: int, log_prob: np.ndarray) -> np.ndarray:
            bounds = np.cumsum(np.exp(log_prob / temperature), -1)
            # Scaled by the last bound, which is not 1 at another temperature, and by rounding; itself it is no bound.
            return (uniform[:, decision] > bounds[:, :-1] / bounds[:, -1:]).sum(-1)

        return _Run(self, weights, count, choose).vectors

    def evaluate(self, weights: Weights, vectors: Any) -> Evaluation:
        """Log-probabilities and entropies of vectors [B, n], and their gradient."""
        vectors = np.asarray(vectors)
        run = _Run(self, weights, len(vectors), lambda decision, _: vectors[:, decision])
        probs, rows = np.exp(run.log_prob), np.arange(len(vectors))[:, None]
        entropy = -(probs * run.log_prob).sum(-1, keepdims=True)
        # Blind decisions are made once for all vectors.
        log_prob = np.broadcast_to(run.log_prob, (len(vectors), *run.log_prob.shape[1:]))
        chosen = log_prob[rows, np.arange(vectors.shape[1]), vectors]

        def pull_back(d_log_probs: np.ndarray, d_entropies: np.ndarray) -> Weights:
            made = np.zeros_like(log_prob)
            made[rows, np.arange(vectors.shape[1]), vectors] = 1.0
            d_logits = d_log_probs[:, None, None] * (made - probs)
            d_logits = d_logits - d_entropies[:, None, None] * probs * (run.log_prob + entropy)
            d_logits = d_logits.astype(log_prob.dtype)
            return run.pull_back(d_logits.sum(0, keepdims=True) if self.mode == BLIND else d_logits)

        # Added up in the order of the decisions.
        total = np.cumsum(entropy[..., 0], -1)[:, -1]
        return Evaluation(np.cumsum(chosen, -1)[:, -1], np.broadcast_to(total, len(vectors)), pull_back)


class _Run:
    """All steps of a controller, remembered.

    Attributes:
        vectors: [B, n], the choices.
        log_prob: [b, n, max(num_choices)]; b is B, or 1 for a blind controller.
    """

    def __init__(self, controller: Controller, weights: Weights, batch: int, choose: Callable):
        self._controller, self._weights = controller, weights
        self._blind, dtype = controller.mode == BLIND, weights["start"].dtype
        size = 1 if self._blind else batch
        # The logistic function is tanh of half, halved and moved up: one tanh does all gates.
        self._scale = np.array([0.5, 0.5, 1.0, 0.5], dtype)[:, None, None]
        self._shift = np.array([0.5, 0.5, 0.0, 0.5], dtype)[:, None, None]
        self._steps: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(LSTM_LAYERS)]
        zero = np.zeros((size, controller.hidden), dtype)
        self._state = [(zero, zero)] * LSTM_LAYERS
        inputs = np.repeat(weights["start"][None], size, 0)
        for _ in range(controller.warmup_steps):
            inputs = self._step(inputs)
        self._outputs, log_probs, chosen = [], [], []
        for decision, (head, count) in enumerate(zip(controller.heads, controller.num_choices, strict=True)):
            inputs = self._step(inputs)
            self._outputs.append(inputs)
            logits = inputs @ weights["head_kernel"][head] + weights["head_bias"][head]
            logits[:, count:] = _NEVER
            logits -= logits.max(-1, keepdims=True)
            log_probs.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
            chosen.append(choose(decision, log_probs[-1]))
            if not self._blind:
                inputs = weights["embedding"][head, chosen[-1]]
        self.log_prob, self.vectors = np.stack(log_probs, 1), np.stack(chosen, 1)

    def _step(self, inputs: np.ndarray) -> np.ndarray:
        """Both layers: [b, hidden] -> [b, hidden]."""
        for layer, (output, cell) in enumerate(self._state):
            joined = np.concatenate([inputs, output], 1)
            gates = _products(joined, self._weights[f"kernel{layer}"]) + self._weights[f"bias{layer}"]
            tanh = np.tanh(gates * self._scale)
            enter, keep, new, show = tanh * self._scale + self._shift
            following = keep * cell + enter * new
            cell_tanh = np.tanh(following)
            self._steps[layer].append((joined, tanh, cell, cell_tanh))
            inputs = show * cell_tanh
            self._state[layer] = (inputs, following)
        return inputs

    def pull_back(self, d_logits: np.ndarray) -> Weights:
        """d/d logits [b, n, max(num_choices)] of a number -> its gradient in the weights."""
        weights, gradient = self._weights, {name: np.zeros_like(value) for name, value in self._weights.items()}
        heads, warmup, h = self._controller.heads, self._controller.warmup_steps, self._controller.hidden
        total = len(heads) + warmup
        d_state: list[Any] = [(0.0, 0.0)] * LSTM_LAYERS
        # Copies, for products with a view are three times as slow.
        transposed = [weights[f"kernel{layer}"].swapaxes(1, 2).copy() for layer in range(LSTM_LAYERS)]
        d_next: Any = 0.0  # Of what entered the step after this one.
        for step in reversed(range(total)):
            decision, d_output = step - warmup, d_state[-1][0]
            if decision >= 0:
                head, d_logit = heads[decision], d_logits[:, decision]
                gradient["head_kernel"][head] += self._outputs[decision].T @ d_logit
                gradient["head_bias"][head] += d_logit.sum(0)
                d_output = d_output + d_logit @ weights["head_kernel"][head].T
            if self._blind or decision < 0:
                d_output = d_output + d_next
            elif step + 1 < total:
                np.add.at(gradient["embedding"][head], self.vectors[:, decision], d_next)
            for layer in reversed(range(LSTM_LAYERS)):
                d_gate, d_cell = self._pull_back_cell(layer, step, d_output, d_state[layer][1])
                gradient[f"kernel{layer}"] += _outer(self._steps[layer][step][0], d_gate)
                gradient[f"bias{layer}"] += d_gate.sum(1, keepdims=True)
                d_joined = _products(d_gate, transposed[layer]).sum(0)
                d_state[layer], d_next = (d_joined[:, h:], d_cell), d_joined[:, :h]
                d_output = d_next + d_state[layer - 1][0]  # Of the layer below; after the lowest not used.
        return gradient | {"start": d_next.sum(0)}

    def _pull_back_cell(self, layer: int, step: int, d_output: Any, d_cell: Any) -> tuple[np.ndarray, np.ndarray]:
        """d/d (output, cell after the step) -> d/d (gates before their non-linearity, cell before the step)."""
        _, tanh, cell, cell_tanh = self._steps[layer][step]
        enter, keep, new, show = tanh * self._scale + self._shift
        d_cell = d_cell + d_output * show * (1.0 - cell_tanh**2)
        d_gate = np.stack([d_cell * new, d_cell * cell, d_cell * enter, d_output * cell_tanh])
        return d_gate * (1.0 - tanh**2) * self._scale**2, d_cell * keep


def _products(rows: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Rows [b, k] or [4, b, k] times matrices [4, k, m].

    A gate at a time these are so small that BLAS does not share one out among threads, which would wait for one
    another's turns where cores are busy: a hundred times the work. Of a single row, which it treats otherwise, it
    would; so that is doubled.
    """
    if rows.shape[-2] > 1:
        return rows @ matrices
    return (np.repeat(rows, 2, -2) @ matrices)[:, :1]


def _outer(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The sum over b of outer products of [b, k] and [4, b, m]: [4, k, m]."""
    # Of a single row a plain product, for BLAS is slow at it.
    return rows.T * others if len(rows) == 1 else rows.T @ others


# A decision of the template space -> the linear layer of the authors' code that makes it; {}: number of the input.
_RECORDED_HEADS = {
    r"t\d+_op[12]": "linear_op",
    r"t\d+_aggregation": "linear_agg_op",
    r"l\d+_input[12]": "ctx_fcs.{}",
    r"l\d+_template": "template_op",
    r"l\d+_repeats": "repeat_op",
    r"l\d+_stride": "stride_op",
}
_ONE_STRIDE = "dummy_stride_op"
_UNUSED = "enc_op.weight"  # An embedding that the authors' code holds and never reads.


def from_recorded(space: TemplateSpace, arrays: Mapping[str, np.ndarray]) -> Weights:
    """The weights of the authors' code as those of the blind controller of the template space.

    Args:
        space: of the decisions.
        arrays: by the authors' names, in PyTorch's layout. Its two biases of an LSTM layer add up to our one.

    Raises:
        InputError: naming an array that is missing, unknown or of another shape.
    """
    controller, names = Controller.of(space, BLIND), _recorded_heads(space)
    h, gates = HIDDEN, 4 * HIDDEN
    expected: dict[str, tuple[int, ...]] = {"g_emb": (1, 1, h), _UNUSED: (controller.num_choices[0], h)}
    for layer in range(LSTM_LAYERS):
        expected |= {f"rnn.weight_{part}_l{layer}": (gates, h) for part in ("ih", "hh")}
        expected |= {f"rnn.bias_{part}_l{layer}": (gates,) for part in ("ih", "hh")}
    for name, count in zip(names, controller.num_choices, strict=True):
        expected |= {f"{name}.weight": (count, h), f"{name}.bias": (count,)}
    for name in arrays:
        if name not in expected:
            raise unknown("array", name, expected)
    for name, shape in expected.items():
        received = tuple(arrays[name].shape) if name in arrays else None
        if received != shape:
            raise InputError(f"array {name!r}: expected shape {shape}, received {received or 'no such array'}")
    weights = {name: np.zeros(shape, np.float32) for name, shape in controller.shapes.items()}
    weights["start"][:] = arrays["g_emb"][0, 0]
    for layer in range(LSTM_LAYERS):
        parts = [arrays[f"rnn.weight_{part}_l{layer}"].reshape(4, h, h) for part in ("ih", "hh")]
        weights[f"kernel{layer}"][:] = np.concatenate(parts, 2).swapaxes(1, 2)
        both = arrays[f"rnn.bias_ih_l{layer}"] + arrays[f"rnn.bias_hh_l{layer}"]
        weights[f"bias{layer}"][:] = both.reshape(4, 1, h)
    for head, name, count in zip(controller.heads, names, controller.num_choices, strict=True):
        weights["head_kernel"][head, :, :count] = arrays[f"{name}.weight"].T
        weights["head_bias"][head, :count] = arrays[f"{name}.bias"]
    return weights


def _recorded_heads(space: TemplateSpace) -> list[str]:
    """The authors' name of the head of each decision."""
    found, inputs = [], 0
    for name, count in zip(space.names, space.num_choices, strict=True):
        head = next(head for pattern, head in _RECORDED_HEADS.items() if re.fullmatch(pattern, name))
        found.append(_ONE_STRIDE if head == "stride_op" and count == 1 else head.format(inputs))
        inputs += "{}" in head
    return found
