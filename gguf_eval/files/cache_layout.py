"""What each layer of a model keeps of the tokens it has seen, by the file's metadata: caches that grow and states.

The rules are llama.cpp's own (``llama-hparams.cpp``, ``llama_model::create_memory``, ``load_arch_hparams`` of each
family); where its code ties a rule to a family's name, so do the tables here.
"""

from __future__ import annotations

from dataclasses import dataclass

from gguf_eval.files.header import ArraySummary, Header
from gguf_eval.files.kinds import MEMORYLESS

_CELLS_STEP = 256
"""llama.cpp pads caches that don't hold the whole context to a multiple of so many cells."""
_F32_BYTES = 4
"""Recurrent states are kept in F32, whatever the type of the cache."""

_RECURRENT = frozenset(("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"))
"""No layer has keys and values."""
_RECURRENT_WITHOUT_HEADS = frozenset(
    ("jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "bailingmoe3", "kimi-k3", "glm5-next",
     "nemotron_h", "nemotron_h_moe")
)  # fmt: skip
"""Hybrids whose layers without key-value heads are recurrent."""
_FULL_ATTENTION_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
"""Hybrids of which every so many layers have attention, unless the file says otherwise; the others are recurrent."""
_DELTA_HEADS = frozenset(("bailingmoe3", "glm5-next", "kimi-k3", "kimi-linear"))
"""Families with a state for each pair of a head's dimensions (``kda.head_dim``)."""
_WITHOUT_GROUPS = frozenset(("mamba", "jamba"))
"""Families for which llama.cpp does not read ``ssm.group_count``."""

_WINDOW_PERIODS = {
    "afmoe": 4, "cohere2": 4, "cohere2moe": 4, "exaone-moe": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5,
    "gpt-oss": 2, "laguna": 4, "llama4": 4, "mellum": 4, "muse-glimmer": 4, "olmo2": 4, "plamo3": 8, "smallthinker": 4,
}  # fmt: skip
"""Of so many layers all but one have a sliding window, unless the file says otherwise ..."""
_DENSE_FIRST = frozenset(("cohere2moe", "laguna", "smallthinker"))
"""... the first of them in these families, else the last."""
_WINDOW_LISTED = frozenset(("dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"))
"""Families whose files list the layers with a window."""
_WINDOW_EVERYWHERE = frozenset(("deepseek4", "lfm2"))
_FIXED_WINDOWS = {"llama4": 8192, "smallthinker": 4096}
_DEFAULT_WINDOWS = {"gemma2": 4096, "exaone4": 4096, "llama4": 8192}
_EXAONE4_WINDOWED_LAYERS = 64
"""Only the family's largest model has windows."""
_KV_LAYERS = {"gemma3n": 20}
"""Only the first so many layers have a cache; the others read theirs."""
SPARSE = frozenset(("deepseek32", "deepseek4", "dots3note", "glm-dsa", "glm5-next", "hy_v4", "minimax-m3", "qwen4exp"))
"""Families whose sparse attention keeps one more key of each token, by which it finds those to attend to."""


@dataclass(frozen=True)
class Cache:
    """One cache of a layer: rows that tokens add."""

    keys: int
    """Numbers a token adds to the keys."""
    values: int
    window: int = 0
    """Tokens the layer looks back, and the cache holds with those of one batch; 0 for all."""
    ratio: int = 1
    """Tokens that share a row."""

    def cells(self, context: int, batch: int, sequences: int = 1) -> int:
        """Rows kept at a context of so many tokens, computed in batches of ``batch``."""
        if self.window:  # llama_kv_cache_iswa
            return _padded(min(context, self.window * sequences + batch))
        return _padded(-(-context // self.ratio)) if self.ratio > 1 else context


@dataclass(frozen=True)
class LayerMemory:
    """What one layer keeps."""

    caches: tuple[Cache, ...]
    state_bytes: int
    """Of a recurrent layer's state, for each sequence."""


def cache_layout(header: Header) -> tuple[LayerMemory, ...]:
    """Return what every layer keeps, from the metadata of a model's first part."""
    facts = Facts(header)
    windows = _windows(facts)
    recurrent = _recurrent(facts)
    loops = max(1, facts.number("num_loops", 1)) if facts.family == "nanbeige" else 1
    state = _state_bytes(facts) if any(recurrent) else 0
    layers = []
    for layer in range(facts.layers):
        attends = (
            layer < facts.trunk
            and facts.family not in MEMORYLESS
            and not (recurrent[layer] and facts.family != "falcon-h1")
        )
        caches = _caches(facts, layer, windows[layer]) * loops if attends else ()
        layers.append(LayerMemory(caches, state if recurrent[layer] else 0))
    return tuple(layers)


class Facts:
    """A family's metadata as llama.cpp reads it."""

    def __init__(self, header: Header) -> None:
        """``header``: of the model's first part."""
        self.family = header.architecture
        self._metadata = header.metadata
        self.layers = self.number("block_count", 0)
        self.trunk = max(0, self.layers - self.number("nextn_predict_layers", 0))
        """Layers without those that only guess further tokens: these have no cache in an ordinary context."""
        heads = self.numbers("attention.head_count", 0)
        self.kv_heads = self.numbers("attention.head_count_kv", 0) if self.has("attention.head_count_kv") else heads
        self.feed_forward = self.numbers("feed_forward_length", 0)
        self.heads = heads[0] if heads else 0
        self.width = self.number("embedding_length", 0)
        self.groups = 0 if self.family in _WITHOUT_GROUPS else self.number("ssm.group_count", 0)
        share = self.width // self.heads if self.heads else 0
        self.key_length = self.number("attention.key_length", share) if self.heads else 0
        self.value_length = self.number("attention.value_length", share) if self.heads else 0

    def has(self, key: str) -> bool:
        """Whether the file has the family's key."""
        return f"{self.family}.{key}" in self._metadata

    def listed(self, key: str) -> list[int] | None:
        """A value for each layer, where the file has a list."""
        value = self._metadata.get(f"{self.family}.{key}")
        if not isinstance(value, list):
            return None
        values = [int(item) for item in value]
        return values + [0] * (self.layers - len(values))

    def numbers(self, key: str, default: int) -> list[int]:
        """The same, where one value may stand for all layers."""
        return self.listed(key) or [self.number(key, default)] * self.layers

    def number(self, key: str, default: int) -> int:
        """One value for all layers; the first of a list."""
        value = self._metadata.get(f"{self.family}.{key}", default)
        if isinstance(value, list):
            value = value[0] if value else default
        if isinstance(value, ArraySummary) or not isinstance(value, (int, float)):
            return default
        return int(value)


def _caches(facts: Facts, layer: int, window: int) -> tuple[Cache, ...]:
    if facts.family in ("nemotron_h", "nemotron_h_moe") and facts.feed_forward[layer]:
        return ()
    shared = facts.number("attention.shared_kv_layers", 0) if facts.family == "gemma4" else 0
    if layer >= _KV_LAYERS.get(facts.family, facts.layers - shared):
        return ()
    compressed = facts.has("attention.key_length_mla") and facts.has("attention.value_length_mla")
    key, value = facts.key_length, facts.value_length
    if window:
        key = facts.number("attention.key_length_swa", key)
        value = facts.number("attention.value_length_swa", value)
    heads = facts.kv_heads[layer]
    keys_only = compressed or facts.family == "deepseek4"
    caches = [Cache(heads * key, 0 if keys_only else heads * value, window)]
    return (*caches, *_index(facts, layer, window))


def _index(facts: Facts, layer: int, window: int) -> tuple[Cache, ...]:
    """What sparse attention adds: keys of its index, and rows that stand for several tokens."""
    width = facts.number("attention.indexer.key_length", 0)
    if facts.family == "deepseek4":
        ratios = facts.listed("attention.compress_ratios") or [0] * facts.layers
        compressed = [Cache(facts.key_length, 0, ratio=ratios[layer])] if ratios[layer] else []
        return (*compressed, *([Cache(width, 0, ratio=4)] if ratios[layer] == 4 else ()))
    if facts.family not in SPARSE or not width or not _indexed(facts, layer, window):
        return ()
    if facts.family == "glm5-next":
        width *= 3  # key, gate and pooled value
    return (Cache(width, width if facts.family == "minimax-m3" else 0),)


def _indexed(facts: Facts, layer: int, window: int) -> bool:
    if facts.family == "minimax-m3":
        return layer >= facts.number("leading_dense_block_count", 0)
    types = facts.listed("attention.indexer.types")
    return not window and (types is None or bool(types[layer]))


def _recurrent(facts: Facts) -> list[bool]:
    """Whether each layer keeps a state; llama.cpp's ``is_recr_impl``."""
    layers = range(facts.layers)
    if facts.family in _RECURRENT or facts.family == "falcon-h1":
        return [True] * facts.layers
    if facts.family in _RECURRENT_WITHOUT_HEADS:
        with_mlp = facts.family.startswith("nemotron")
        return [
            layer < facts.trunk and not facts.kv_heads[layer] and not (with_mlp and facts.feed_forward[layer])
            for layer in layers
        ]
    if facts.family in _FULL_ATTENTION_INTERVALS:
        listed = facts.listed("attention.recurrent_layers")
        if listed is not None:
            return [layer < facts.trunk and bool(listed[layer]) for layer in layers]
        interval = facts.number("full_attention_interval", _FULL_ATTENTION_INTERVALS[facts.family])
        return [layer < facts.trunk and (layer + 1) % max(1, interval) != 0 for layer in layers]
    return [False] * facts.layers


def _state_bytes(facts: Facts) -> int:
    """Of one recurrent layer: llama.cpp's ``n_embd_r`` (convolutions, shifted tokens) and ``n_embd_s``."""
    kernel, inner = facts.number("ssm.conv_kernel", 0), facts.number("ssm.inner_size", 0)
    state, kda = facts.number("ssm.state_size", 0), facts.number("kda.head_dim", 0)
    if facts.family.startswith(("rwkv", "arwkv")):
        numbers = facts.width * (facts.number("token_shift_count", 2) + facts.number("wkv.head_size", 0))
    elif facts.family.startswith("lfm2"):
        numbers = facts.width * max(0, facts.number("shortconv.l_cache", 1) - 1)
    elif facts.family == "minimax-01":
        numbers = facts.key_length**2 * facts.heads
    elif facts.family in _DELTA_HEADS:
        numbers = 3 * (kernel - 1 if kernel else 3) * facts.heads * kda + kda**2 * facts.heads
    else:
        numbers = max(0, kernel - 1) * (inner + 2 * facts.groups * state) + state * inner
    return numbers * _F32_BYTES


def _windows(facts: Facts) -> list[int]:
    """The sliding window of each layer, 0 where it has none; llama.cpp's ``n_swa`` and ``is_swa_impl``."""
    none = [0] * facts.layers
    given = facts.number("attention.sliding_window", _DEFAULT_WINDOWS.get(facts.family, 0))
    window = _FIXED_WINDOWS.get(facts.family, given) if given else 0
    if not window or (facts.family == "exaone4" and facts.layers != _EXAONE4_WINDOWED_LAYERS):
        return none
    if facts.family in _WINDOW_EVERYWHERE:
        return [window] * facts.layers
    listed = facts.listed("attention.sliding_window_pattern")
    if facts.family in (_WINDOW_LISTED | _WINDOW_PERIODS.keys()) and listed is not None:
        return [window if windowed else 0 for windowed in listed[: facts.layers]]
    if facts.family not in _WINDOW_PERIODS:
        return none
    period = facts.number("attention.sliding_window_pattern", _WINDOW_PERIODS[facts.family])
    dense = 0 if facts.family in _DENSE_FIRST else period - 1
    windowed = [not period or layer % period != dense for layer in range(facts.trunk)]
    return [window * number for number in windowed] + none[facts.trunk :]


def _padded(cells: int) -> int:
    return -(-cells // _CELLS_STEP) * _CELLS_STEP
