"""Small random models of the causal architectures that the installed transformers has."""

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 40
NAMES = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
SIZES = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input pronunciation_vocab_size shape_vocab_size",
    256: "max_position_embeddings n_positions max_seq_len",
    64: "encoder_hash_byte_group_vocab",
    48: "intermediate_size ffn_dim ffn_hidden_size n_inner encoder_ffn_dim decoder_ffn_dim dff ffn_hidden d_inner",
    32: "hidden_size n_embd d_model dim embedding_size word_embed_proj_dim emb_dim lru_width",
    16: "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size q_lora_rank kv_lora_rank "
    "o_lora_rank index_head_dim mamba_head_dim mamba_d_head",
    8: "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim d_kv "
    "linear_head_dim index_topk hidden_size_per_layer_input ssm_state_size mamba_d_state pronunciation_embed_dim "
    "shape_embed_dim",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads num_experts "
    "num_local_experts n_routed_experts linear_num_value_heads mamba_num_heads mamba_n_heads index_n_heads "
    "linear_num_heads",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_key_value_heads eos_token_id "
    "num_experts_per_tok num_experts_per_token moe_topk linear_num_key_heads",
    1: "n_group topk_group n_shared_experts bos_token_id decoder_start_token_id",
    0: "pad_token_id",
}
SMALL = {key: size for size, keys in SIZES.items() for key in keys.split()}
SMALL |= {"tie_word_embeddings": False, "is_decoder": True}
OWN: dict[str, dict[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"]},
    "lfm2_moe": {"layer_types": ["full_attention", "conv"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
    "zamba": {"num_hidden_layers": 3},
    "zamba2": {"layer_types": ["mamba", "hybrid"], "hybrid_layer_ids": [1]},
    "zaya": {"num_experts_per_tok": 1},
}
# Of towers for pictures and sound, of two models, or of packages that are not here.
UNBUILT = {
    "cohere_compass_text",
    "dbrx",
    "gemma3n",
    "gemma4_assistant",
    "gemma4_unified_assistant",
    "musicgen",
    "musicgen_melody",
}


def small_config(name: str, **settings: Any) -> PretrainedConfig:
    return _shrunk(CONFIG_MAPPING[name], name, OWN.get(name, {}) | settings)


def _shrunk(kind: type[PretrainedConfig], name: str, settings: dict[str, Any]) -> PretrainedConfig:
    default = kind()
    stated = default.to_dict().keys() - kind.attribute_map.keys()
    sizes = {key: size for key, size in SMALL.items() if key in stated}
    if "kv_lora_rank" in sizes and "num_key_value_heads" in sizes:
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]  # latent attention has no groups
    for part in kind.sub_configs:
        if (inner := getattr(default, part, None)) is not None:
            sizes[part] = _shrunk(type(inner), name, {}).to_dict()
    return kind(**sizes | settings)


def build(config: PretrainedConfig) -> PreTrainedModel:
    """In float32, with weights large enough that tokens vary."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
            elif parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.float().eval()
