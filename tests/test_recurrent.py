"""Depth steps against a forward pass written out; initial states in any batch; loading with code that comes along."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from recurrent_model import make_model, save_as_shipped, trace
from safetensors.torch import load_file, save_file
from test_models import save_checkpoint

from thinksteer import hub, model_files, models
from thinksteer.activations import class_means, span_means
from thinksteer.layout import layout_of
from thinksteer.localize import head_scores
from thinksteer.places import Place
from thinksteer.records import Edit, InputError, Passage, Span
from thinksteer.recurrent import Depth, seed_initial_states, step_name
from thinksteer.steering import applied
from thinksteer.thinking import TEMPLATES

SITES = ("block_in", "attn_out", "mid", "mlp_out", "block_out")
STEPS, WIDTH = 16, 24  # 2 + 3 * 4 + 2
IDS = torch.randint(40, (2, 6), generator=torch.Generator().manual_seed(4))
STATES = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
VECTOR = torch.randn(WIDTH, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


@pytest.fixture(scope="module")
def shared():
    return make_model()


@pytest.fixture
def model(shared):
    """As it was made: whatever a test sets or hooks is undone."""
    yield shared
    shared.config.mean_recurrence = 4
    shared.eval()
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in shared.modules()), "a hook was left behind"


@pytest.fixture
def seeded(model):
    handle = seed_initial_states(model)
    yield model
    handle.remove()


@torch.no_grad()
def logits(model, ids=IDS, **more):
    return model(ids, **{"input_states": STATES[: len(ids)]} | more).logits


def test_huginns_steps_are_numbered_as_published():
    published = {"n_layers_in_prelude": 2, "n_layers_in_recurrent_block": 4, "n_layers_in_coda": 2}
    depth = Depth.of(published | {"mean_recurrence": 32})
    assert depth.steps == 132
    words = {
        0: "prelude, block 0",
        1: "prelude, block 1",
        2: "recurrence 0, block 0",
        31: "recurrence 7, block 1",
        66: "recurrence 16, block 0",
        127: "recurrence 31, block 1",
        129: "recurrence 31, block 3",
        130: "coda, block 0",
        131: "coda, block 1",
    }
    assert {step: step_name(step, depth) for step in words} == words


def test_every_step_and_site_is_what_the_written_out_pass_has_there(model):
    expected, seen = trace(model, IDS, STATES)
    layout, found = layout_of(model), {}
    assert layout.shape == (STEPS, WIDTH)
    places = {(step, site): layout.site(step, site) for step in range(STEPS) for site in SITES}
    handles = [place.watch(partial(found.__setitem__, key)) for key, place in places.items()]
    handles.append(layout.final.watch(partial(found.__setitem__, "final")))
    for _ in range(2):  # passes in a row are numbered alike
        found.clear()
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-12)
        assert found.keys() == seen.keys()
        for key in seen:
            torch.testing.assert_close(found[key], seen[key], rtol=0, atol=1e-12)
    for handle in handles:
        handle.remove()


def changed_at(step, site):
    return lambda at_step, at_site, hidden: hidden + VECTOR if (at_step, at_site) == (step, site) else hidden


def acts_once(model, step, site, place):
    """Whether adding a vector at the place changes that step alone: all after it follow, none before it changes."""
    expected, wanted = trace(model, IDS, STATES, changed_at(step, site))
    _, clean = trace(model, IDS, STATES)
    outputs, blocks = [], [*model.transformer.prelude, *model.transformer.core_block, *model.transformer.coda]
    handle = place.watch(lambda hidden: hidden + VECTOR)
    logs = [block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in blocks]
    found = logits(model)
    for one in (handle, *logs):
        one.remove()
    assert all(not torch.equal(wanted[at, "block_out"], clean[at, "block_out"]) for at in range(step, STEPS))
    return torch.allclose(found, expected, rtol=0, atol=1e-12) and all(
        torch.allclose(outputs[at], (clean if at < step else wanted)[at, "block_out"], rtol=0, atol=1e-12)
        for at in range(STEPS)
    )


@pytest.mark.parametrize("site", SITES)
def test_a_hook_acts_at_its_step_alone_and_one_of_the_module_would_not(model, site):
    layout = layout_of(model)
    for step in range(STEPS):
        place = layout.site(step, site)
        assert acts_once(model, step, site, place)
        runs_once = step < 2 or step >= STEPS - 2
        assert acts_once(model, step, site, Place(place.module, place.side)) == runs_once


def test_watches_of_one_module_do_not_disturb_each_other_and_end_one_by_one(model):
    layout, seen = layout_of(model), []
    first, second = (layout.site(step, "block_out").watch(lambda _, s=step: seen.append(s)) for step in (2, 8))
    logits(model)
    assert seen == [2, 8]
    first.remove()
    logits(model)
    assert seen == [2, 8, 8]
    second.remove()
    logits(model)
    assert seen == [2, 8, 8]


def test_steps_are_numbered_anew_at_every_token_of_a_cached_text(seeded):
    _, whole = trace(seeded, IDS, first_states(seeded, IDS))
    seen, cache = [], None
    handle = layout_of(seeded).site(9, "mlp_out").watch(seen.append)
    for begin, end in ((0, 3), (3, 4), (4, 6)):
        how = {"cache_position": torch.arange(begin, end), "past_key_values": cache, "use_cache": True}
        cache = seeded(IDS[:, begin:end], **how).past_key_values
    handle.remove()
    torch.testing.assert_close(torch.cat(seen, 1), whole[9, "mlp_out"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("step", [0, 2, 13, 15])
def test_another_number_of_recurrences_than_the_steps_were_numbered_for_is_noticed(model, step):
    seen = []
    handle = layout_of(model).site(step, "block_out").watch(seen.append)
    with pytest.raises(InputError, match="ran only 3 recurrences, but its depth steps are numbered for 4"):
        logits(model, num_steps=3)
    with pytest.raises(InputError, match=r"ran more than 4 recurrences.*--mean_recurrence"):
        logits(model, num_steps=torch.tensor([3, 2]))
    seen.clear()
    logits(model, num_steps=(1, 3))  # without and with gradient: 4 together
    model.config.mean_recurrence = 5
    with pytest.raises(InputError, match="more than 4"):
        logits(model)
    handle.remove()
    assert len(seen) == (1 if step == 15 else 2)  # only a coda comes after the recurrence too many


def test_a_layout_follows_the_configured_number_of_recurrences(model):
    model.config.mean_recurrence = 6
    layout = layout_of(model)
    assert layout.shape == (22, WIDTH) and step_name(19, layout.depth) == "recurrence 5, block 2"
    _, seen = trace(model, IDS, STATES)
    found = []
    handle = layout.site(19, "block_out").watch(found.append)
    logits(model)
    handle.remove()
    torch.testing.assert_close(found[0], seen[19, "block_out"], rtol=0, atol=1e-12)


def first_states(model, ids):
    """What the recurrence begins with, `[B, T, D]`, in a pass over the ids."""
    found = []
    handle = model.transformer.adapter.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.no_grad():
        model(ids)
    handle.remove()
    return found[0][..., :WIDTH]


def test_initial_states_differ_by_the_tokens_so_far_and_by_nothing_else(seeded):
    torch.manual_seed(98)
    before = torch.get_rng_state()
    states = first_states(seeded, IDS)
    assert torch.equal(torch.get_rng_state(), before), "others draw what they would have drawn"
    torch.manual_seed(99)
    assert torch.equal(first_states(seeded, IDS[[1, 0]]), states[[1, 0]])
    assert torch.equal(first_states(seeded, IDS[:1, :4]), states[:1, :4])
    padded = torch.cat([IDS[:1, :4], torch.zeros(1, 5, dtype=torch.long)], dim=1)
    assert torch.equal(first_states(seeded, padded)[:, :4], states[:1, :4])
    other = IDS.clone()
    other[0, 2] += 1
    differ = (first_states(seeded, other) != states).any(-1)
    assert differ.tolist() == [[False] * 2 + [True] * 4, [False] * 6]
    repeated = first_states(seeded, torch.full((1, 8), 7))[0]
    assert len({tuple(row.tolist()) for row in repeated}) == 8


def test_initial_states_have_the_models_distribution_and_a_callers_own_are_left_alone(seeded):
    states = first_states(seeded, torch.arange(400).view(1, -1) % 40)
    reference = seeded.initialize_state(torch.empty(1, 4000, WIDTH))
    assert abs(states.mean()) < 0.02 and abs(states.std() - reference.std()) < 0.02 and states.abs().max() <= 1.5
    assert torch.equal(logits(seeded), trace(seeded, IDS, STATES)[0])


def test_an_unseeded_model_has_other_states_at_every_pass(model):
    assert not torch.equal(first_states(model, IDS), first_states(model, IDS))


def make_passages():
    generator = torch.Generator().manual_seed(1)
    ids = [tuple(torch.randint(40, (length,), generator=generator).tolist()) for length in (5, 11, 8, 3)]
    labels = ("memory", "reasoning") * 2
    return [
        Passage(f"p{index}", row, (Span(label, len(row) - 2, len(row)),))
        for index, (row, label) in enumerate(zip(ids, labels, strict=True))
    ]


def test_means_over_spans_are_those_of_each_text_read_alone_whatever_the_batches(seeded):
    passages, layout = make_passages(), layout_of(seeded)
    whole = {one.id: trace(seeded, ids := torch.tensor([one.ids]), first_states(seeded, ids))[1] for one in passages}
    for budget in (1, 1000):
        places = {site: [layout.site(step, site) for step in range(STEPS)] for site in SITES}
        found = span_means(seeded, passages, places, budget)
        for site in SITES:
            for label, members in (("memory", passages[0::2]), ("reasoning", passages[1::2])):
                each = [torch.stack([whole[p.id][s, site][0, -2:].mean(0) for s in range(STEPS)]) for p in members]
                torch.testing.assert_close(found[site][label], torch.stack(each).mean(0), rtol=0, atol=1e-10)
    means = class_means(seeded, passages, ["block_out"], 1000, after_norm=True).means["block_out"]["memory"]
    expected = torch.stack([whole[p.id]["final"][0, -2:].mean(0) for p in passages[0::2]]).mean(0)
    torch.testing.assert_close(means[-1], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("step", [1, 2, 7, 13, 15])
def test_steering_adds_at_one_step_and_ablation_leaves_nothing_along_the_direction_there(model, step):
    vectors, toward = torch.zeros(STEPS, WIDTH, dtype=torch.float64), VECTOR / VECTOR.norm()
    vectors[step] = VECTOR
    with applied(model, [Edit("block_out", vectors, (step,), 2.0)]):
        found = logits(model)
    twice = lambda at, site, hidden: hidden + 2 * VECTOR if (at, site) == (step, "block_out") else hidden  # noqa: E731
    torch.testing.assert_close(found, trace(model, IDS, STATES, twice)[0], rtol=0, atol=1e-12)
    layout, left = layout_of(model), {}
    with applied(model, [Edit("block_out", vectors, (step,), -1.0, operation="amplify")]):
        handles = [layout.site(at, "block_out").watch(partial(left.__setitem__, at)) for at in range(STEPS)]
        logits(model)
    for handle in handles:
        handle.remove()
    along = [(left[at] @ toward).abs().max().item() for at in range(STEPS)]
    assert along[step] < 1e-12 and all(one > 1e-3 for at, one in enumerate(along) if at != step)


def test_heads_of_blocks_that_run_many_times_are_refused_in_words(model):
    with pytest.raises(InputError, match=r"runs the same blocks at many depth steps.*can be read and steered, but no"):
        head_scores(model, make_passages(), torch.zeros(STEPS, WIDTH), 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint that brings its own code."""
    place = tmp_path_factory.mktemp("models") / "small-huginn"
    save_as_shipped(make_model().float(), place)
    return place


@pytest.fixture
def ref(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return models.ModelRef("small-huginn", str(folder), TEMPLATES["plain"])


def test_the_models_own_code_runs_only_if_asked_for(ref, tmp_path):
    with pytest.raises(InputError, match="trust_remote_code"):
        models.load_model(ref, "cpu")
    assert not (tmp_path / "modules").exists()
    model = models.load_model(ref, "cpu", trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules") and not model.training
    assert torch.equal(model(IDS).logits, model(IDS).logits), "its initial states are seeded"


def test_every_pass_runs_the_recurrences_asked_for(ref):
    for asked, expected in ((None, 4), (2, 2), (7, 7)):
        model = models.load_model(ref, "cpu", trust_remote_code=True, mean_recurrence=asked)
        runs = []
        model.transformer.adapter.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        model(IDS)
        assert (len(runs), layout_of(model).shape[0]) == (expected, 4 + 3 * expected)


def with_code(place, old="", new=""):
    """A checkpoint whose tied weights are stored once, with its code changed."""
    save_as_shipped(make_model().float(), place, tied=True)
    file = place / "recurrent_model.py"
    code = file.read_text()
    assert old in code
    file.write_text(code.replace(old, new, 1))
    return models.ModelRef(place.name, str(place), TEMPLATES["plain"])


LAST = "        self.post_init()\n"
TIES = "        if config.tie_embeddings:\n            self.tie_weights()\n"


@pytest.mark.usefixtures("ref")
@pytest.mark.parametrize("name, new", [("as it is", LAST), ("never", ""), ("ties", TIES), ("both", TIES + LAST)])
def test_code_for_transformers_4_loads_with_its_tied_weights(tmp_path, name, new):
    """It lists them without what they are tied to, may tie them itself, and need not end in `post_init`."""
    loaded = models.load_model(with_code(tmp_path / name.replace(" ", "_"), LAST, new), "cpu", trust_remote_code=True)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    expected = make_model().float()
    expected.lm_head.weight = expected.transformer.wte.weight
    states = STATES.float()
    with torch.no_grad():
        assert torch.equal(loaded(IDS, input_states=states).logits, expected(IDS, input_states=states).logits)


@pytest.mark.usefixtures("ref")
@pytest.mark.parametrize(
    "name, old, new, says",
    [
        ("buffer", "persistent=True", "persistent=False", r"its own code computes freqs_cis in its constructor"),
        (
            "later",
            LAST,
            LAST + "        self.gone()\n",
            r"'gone'\): its own code does not fit transformers 5\.\d+\.\d+: use",
        ),
        ("parts", '"adapter": nn', '"mixer": nn', r"has no transformer.adapter: it is not built as Huginn is"),
    ],
)
def test_what_is_wrong_with_a_models_own_code_is_said(tmp_path, name, old, new, says):
    ref = with_code(tmp_path / name, old, new)
    if name == "parts":  # the checkpoint's, too
        tensors = load_file(tmp_path / name / "model.safetensors")
        renamed = {key.replace("adapter", "mixer"): value for key, value in tensors.items()}
        save_file(renamed, tmp_path / name / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=says) as caught:
        models.load_model(ref, "cpu", trust_remote_code=True)
    assert "\n" not in str(caught.value) and "download it again" not in str(caught.value)


@pytest.mark.usefixtures("ref")
def test_a_config_that_transformers_5_wrote_says_what_to_take_out_of_it_and_leaves_the_tokenizer_alone(tmp_path):
    ref = with_code(tmp_path / "five")
    config = json.loads((tmp_path / "five" / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "five" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"itself: take it out of its config\.json$") as caught:
        models.load_model(ref, "cpu", trust_remote_code=True)
    assert "its own code states tie_word_embeddings itself" in str(caught.value)
    words = save_checkpoint(tmp_path / "other", ())
    for file in words.glob("tokenizer*"):
        (tmp_path / "five" / file.name).write_bytes(file.read_bytes())
    assert models.load_tokenizer(ref, trust_remote_code=True).get_vocab() == models.load_tokenizer(ref).get_vocab()


def test_a_model_without_recurrence_has_none_to_choose(tmp_path):
    plain = models.ModelRef("plain", str(save_checkpoint(tmp_path / "plain", ())), TEMPLATES["plain"])
    with pytest.raises(InputError, match="--mean_recurrence 8: plain is no recurrent-depth model"):
        models.load_model(plain, "cpu", mean_recurrence=8)


def test_huginn_without_its_code_is_one_clear_error_before_anything_is_fetched(monkeypatch):
    for place, name in (
        (model_files, "snapshot_download"),
        (hub, "reachable"),
        (hub, "hf_hub_download"),
        (hub, "try_to_load_from_cache"),
    ):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("asked for a file"))
    huginn = models.resolve("huginn-0125", Path("nowhere"))
    assert (huginn.location, huginn.template.name) == ("tomg-group-umd/huginn-0125", "plain")
    for load in (models.load_model, models.load_tokenizer):
        with pytest.raises(InputError, match=r"huginn-0125 comes with Python code.*, then add --trust_remote_code$"):
            load(huginn)
