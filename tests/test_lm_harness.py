"""Recurrent-depth models in lm-eval, steered: texts of any length in one batch are as each of them alone."""

import pytest
import torch
from lm_eval.api.instance import Instance
from recurrent_model import make_model
from test_engines_hf import TEMPLATE, make_tokenizer

from thinksteer.engines.hf import HFEngine
from thinksteer.lm_harness import harness
from thinksteer.records import Edit, InputError, Request, Sampling
from thinksteer.recurrent import seed_initial_states
from thinksteer.steering import applied

VECTORS = torch.randn(16, 24, generator=torch.Generator().manual_seed(1))
EDITS = [Edit("block_in", VECTORS, (7,), -1.0, operation="amplify")]
TEXTS = [("abc", "de"), ("hijklmn", "opq"), ("xy", "z")]
TOKENIZER = make_tokenizer()


@pytest.fixture(scope="module")
def model():
    model = make_model()
    seed_initial_states(model)
    return model


def ids(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


def generated(model, count, **settings):
    asked = [Instance("generate_until", {}, (text, {"max_gen_toks": count} | settings), 0) for text, _ in TEXTS]
    return harness(model, TOKENIZER, 2).generate_until(asked)


def test_likelihoods_are_those_of_each_text_alone(model):
    asked = [Instance("loglikelihood", {}, text, 0) for text in TEXTS]
    with applied(model, EDITS):
        found = harness(model, TOKENIZER, 2).loglikelihood(asked)
        for (context, continuation), (score, _) in zip(TEXTS, found, strict=True):
            first, rest = ids(context), ids(continuation)
            with torch.no_grad():
                logits = model(torch.tensor([first + rest])).logits[0].log_softmax(-1)
            wanted = sum(logits[len(first) - 1 + place, token] for place, token in enumerate(rest))
            assert score == pytest.approx(wanted.item(), abs=1e-9)


def test_answers_are_those_of_our_engine_up_to_a_text_that_ends_them(model):
    requests = [Request(text, 0, text, tuple(ids(text)), 0) for text, _ in TEXTS]
    answers = HFEngine(model, TOKENIZER, TEMPLATE).generate(requests, Sampling(12, 0.0, 1.0, 0), EDITS)
    wanted = {one.id: TOKENIZER.decode(one.token_ids, skip_special_tokens=True) for one in answers}
    with applied(model, EDITS):
        found = generated(model, 12)
        assert found == [wanted[text] for text, _ in TEXTS] and len(set(found)) == 3
        stop = found[1][4]  # between its tokens are blanks
        assert generated(model, 12, until=[stop]) == [text.split(stop)[0] for text in found]
        tokens = torch.tensor([ids(TEXTS[1][0])])
        more = harness(model, TOKENIZER, 1)._model_generate(tokens, 20, [stop], torch.ones_like(tokens))
        assert TOKENIZER.decode(more[0, 7:]) == found[1].split(stop)[0] + stop
    assert generated(model, 12) != found


def test_a_task_that_samples_is_refused(model):
    with pytest.raises(InputError, match="draws its answers at random"):
        generated(model, 12, do_sample=True, temperature=0.7)


def test_prompts_may_be_as_long_as_the_model_takes(model):
    assert harness(model, TOKENIZER, 2).max_length == 512
