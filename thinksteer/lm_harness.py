"""A loaded model as lm-eval calls it."""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from thinksteer.engines.recurrent import StepCache
from thinksteer.records import InputError
from thinksteer.recurrent import is_recurrent


def harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int, **thinking: Any) -> HFLM:
    """What `lm_eval.simple_evaluate` takes as its model; `thinking`: lm-eval's `think_end_token`, up to which a text is
    no answer, and `chat_template_args`."""
    about = {"pretrained": model, "tokenizer": tokenizer, "batch_size": batch_size} | thinking
    if is_recurrent(model):
        # lm-eval does not know this name of its length and would cut prompts to 2048 tokens.
        return RecurrentLM(**about, max_length=model.config.block_size)
    return HFLM(**about)


class RecurrentLM(HFLM):
    """For recurrent-depth models, which mask no padding: each answer is generated alone, greedily.

    Log-likelihoods are padded behind the text, where nothing sees the padding.
    """

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], attention_mask: Tensor, **kwargs: Any
    ) -> Tensor:
        """Contexts `[B, T]`, padded on the left, with what follows each, padded on the right."""
        if kwargs.get("do_sample"):
            raise InputError("a task draws its answers at random; from recurrent-depth models they are greedy here")
        room = max_length - context.shape[1]
        rows = [
            self._continued(ids[mask.bool()], room, stop) for ids, mask in zip(context, attention_mask, strict=True)
        ]
        return torch.cat([context, pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)], 1)

    @torch.inference_mode()
    def _continued(self, prompt: Tensor, room: int, stop: list[str]) -> Tensor:
        """The tokens after a prompt `[T]`, `room` at most, up to one of the texts in `stop`, which holds EOS."""
        ids, cache, fed = prompt[None], StepCache(1), 0
        ends = stop_sequences_criteria(self.tokenizer, stop, len(prompt), 1)
        for _ in range(room):
            places = torch.arange(fed, ids.shape[1], device=ids.device)
            output = self.model(ids[:, fed:], cache_position=places, past_key_values=cache, use_cache=True)
            fed, ids = ids.shape[1], torch.cat([ids, output.logits[:, -1:].argmax(-1)], dim=1)
            if ends(ids, None).all():
                break
        return ids[0, len(prompt) :]
