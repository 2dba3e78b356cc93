"""Trains an attention-only transformer: a Llama of Hugging Face whose MLPs write zero and stay so."""

from collections.abc import Iterator

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.induction_emergence.config import BOS, Config
from experiments.induction_emergence.data import training_batch


def attention_only(config: Config, n_layers: int, seed: int) -> LlamaForCausalLM:
    """The model before training. The global random state is left as it was."""
    settings = LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.d_model,
        intermediate_size=1,
        num_hidden_layers=n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_heads,
        head_dim=config.d_head,
        max_position_embeddings=config.context,
        bos_token_id=BOS,
        eos_token_id=BOS,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(settings)
    for name, parameter in model.named_parameters():
        if ".mlp." in name or "post_attention_layernorm" in name:
            parameter.requires_grad_(False)
        if "mlp.down_proj" in name:
            nn.init.zeros_(parameter)
    return model


def train(config: Config, n_layers: int, seed: int) -> Iterator[tuple[int, LlamaForCausalLM]]:
    """Trains, and yields the step and the model (in evaluation mode) every ``config.every`` steps, before the first and after the last.

    The same seed gives the same weights on one machine and thread count.
    """
    model = attention_only(config, n_layers, seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    looking = [
        weight for layer in model.model.layers for weight in (_weight(layer, "q_proj"), _weight(layer, "k_proj"))
    ]
    others = [parameter for parameter in trained if not any(parameter is weight for weight in looking)]
    groups = [
        {"params": looking, "weight_decay": config.attention_decay},
        {"params": others, "weight_decay": config.weight_decay},
    ]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
    generator = torch.Generator().manual_seed(seed)
    for step in range(config.steps + 1):
        if step % config.every == 0 or step == config.steps:
            yield step, model.eval()
            model.train()
        if step == config.steps:
            return
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / config.warm_up)
        ids = training_batch(config, generator)
        logits = model(ids, use_cache=False).logits
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, config.clip)
        optimiser.step()


def _weight(layer: nn.Module, name: str) -> nn.Parameter:
    return layer.get_parameter(f"self_attn.{name}.weight")
