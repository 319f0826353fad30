"""Fills in the metadata of a model file: the keys and values that llama.cpp's own converter writes.

gguf's writer is used as a typed dictionary; it knows every key's name and type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gguf_eval.errors import ModelFileError
from gguf_eval.files.checkpoint import Description, read_json
from gguf_eval.files.convert.families import ARCHITECTURE, Hyperparameters
from gguf_eval.files.convert.tokenizers import GRANITE_VOCABULARY, Vocabulary

if TYPE_CHECKING:
    from gguf_eval.files.convert.tensor import PlannedTensor

_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}
_NUMBER = (int, float)
_SAMPLING: Mapping[str, tuple[str, tuple[type, ...]]] = {
    # key of generation_config.json -> gguf's name, types that can be stored
    "sequence": ("sampling_sequence", (str,)),
    "top_k": ("sampling_top_k", (int,)),
    "top_p": ("sampling_top_p", _NUMBER),
    "min_p": ("sampling_min_p", _NUMBER),
    "xtc_probability": ("sampling_xtc_probability", _NUMBER),
    "xtc_threshold": ("sampling_xtc_threshold", _NUMBER),
    "temperature": ("sampling_temp", _NUMBER),
    "penalty_last_n": ("sampling_penalty_last_n", (int,)),
    "repetition_penalty": ("sampling_penalty_repeat", _NUMBER),
    "penalty_repeat": ("sampling_penalty_repeat", _NUMBER),
    "mirostat": ("sampling_mirostat", (int,)),
    "mirostat_tau": ("sampling_mirostat_tau", _NUMBER),
    "mirostat_eta": ("sampling_mirostat_eta", _NUMBER),
}
_ID_KINDS = ("bos", "eos", "eot", "eom", "unk", "sep", "pad", "mask")
_ADDED_KINDS = ("bos", "eos", "sep")


def collect_metadata(
    description: Description,
    hyper: Hyperparameters,
    vocabulary: Vocabulary,
    out_type: str,
    tensors: Sequence[PlannedTensor],
) -> tuple[Mapping[str, Any], list[str]]:
    """Return the keys with their typed values, in order, and warnings."""
    import gguf

    writer = gguf.GGUFWriter(path=None, arch=ARCHITECTURE)
    writer.add_type(gguf.GGUFType.MODEL)
    warnings = _add_general(writer, description, tensors)
    _add_parameters(writer, hyper)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[out_type]])
    writer.add_vocab_size(hyper.vocabulary)
    writer.add_rope_dimension_count(hyper.head_dimension)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, vocabulary)
    return writer.kv_data[0], warnings


def _add_general(writer: Any, description: Description, tensors: Sequence[PlannedTensor]) -> list[str]:
    """Add name, size, licence and origin, as far as folder name, config and model card tell."""
    import gguf

    warnings = []
    total, shared, expert, experts = _count_parameters(tensors)
    name = description.folder.with_name(description.name)
    try:
        card = gguf.Metadata.load_model_card(description.folder)
        data = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), card, dict(description.config), name, total)
    except Exception as error:  # whatever a hand-written card holds, the weights are good without it
        warnings.append(f"README.md: the model card can't be used ({str(error).partition(chr(10))[0]}); left out")
        data = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), {}, {}, name, total)
    try:
        settings = read_json(description.folder / "generation_config.json") or {}
    except ModelFileError as error:
        warnings.append(f"{error}; left out")
        settings = {}
    for key, (attribute, kinds) in _SAMPLING.items():
        if isinstance(settings.get(key), kinds) and not isinstance(settings[key], bool):
            setattr(data, attribute, settings[key])
    if description.source is not None:
        owner = description.source.repo.partition("/")[0]
        data.name = data.name or description.source.repo
        data.organization = data.organization or gguf.Metadata.id_to_title(owner)
        data.source_repo_url = description.source.url
        data.source_url = f"{description.source.url}/tree/{description.source.commit}"
    data.name = data.name or description.name
    data.size_label = data.size_label or gguf.size_label(total, shared, expert, experts)
    data.set_gguf_meta_model(writer)
    return warnings


def _count_parameters(tensors: Sequence[PlannedTensor]) -> tuple[int, int, int, int]:
    """Count weights: all, those outside the experts, those of one expert in each layer, experts in a layer."""
    shared = one_expert = experts = 0
    for tensor in tensors:
        size = math.prod(tensor.shape)
        if "_exps." in tensor.name:
            experts = tensor.shape[0]
            one_expert += size // experts
        else:
            shared += size
    return shared + one_expert * max(experts, 1), shared, one_expert, experts


def _add_parameters(writer: Any, hyper: Hyperparameters) -> None:
    import gguf

    writer.add_block_count(hyper.layers)
    writer.add_context_length(hyper.context)
    writer.add_embedding_length(hyper.embedding)
    writer.add_feed_forward_length(hyper.feed_forward)
    writer.add_head_count(hyper.heads)
    writer.add_head_count_kv(hyper.kv_heads)
    rope = hyper.rope
    if rope.kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType[rope.kind.upper()])
        writer.add_rope_scaling_factor(rope.parameters["factor"])
    if rope.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope.parameters["original_max_position_embeddings"])
        for names, add in (
            (("extrapolation_factor",), writer.add_rope_scaling_yarn_ext_factor),
            (("attention_factor", "attn_factor"), writer.add_rope_scaling_yarn_attn_factor),
            (("beta_fast",), writer.add_rope_scaling_yarn_beta_fast),
            (("beta_slow",), writer.add_rope_scaling_yarn_beta_slow),
        ):
            given = [rope.parameters[name] for name in names if rope.parameters.get(name) is not None]
            if given:
                add(given[0])
    writer.add_rope_freq_base(rope.theta)
    writer.add_layer_norm_rms_eps(hyper.norm_epsilon)
    if hyper.experts:
        writer.add_expert_count(hyper.experts)
        writer.add_expert_used_count(hyper.experts_used)
    if hyper.writes_head_dimension:
        writer.add_key_length(hyper.head_dimension)
        writer.add_value_length(hyper.head_dimension)


def _add_tokenizer(writer: Any, vocabulary: Vocabulary) -> None:
    if vocabulary.add_space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    special = vocabulary.special
    for kind, token_id in special.ids.items():
        if kind in _ID_KINDS:
            getattr(writer, f"add_{kind}_token_id")(token_id)
    for kind, value in special.added.items():
        if kind in _ADDED_KINDS:
            getattr(writer, f"add_add_{kind}_token")(value)
    if special.chat_template:
        writer.add_chat_template(special.chat_template)
    if vocabulary.infill_end is not None:
        writer.add_eot_token_id(vocabulary.infill_end)
    if len(vocabulary.tokens) == GRANITE_VOCABULARY:
        writer.add_add_bos_token(False)
