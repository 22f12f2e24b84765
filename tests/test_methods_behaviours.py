"""Behaviours: what is read for a label, how long its direction is, where upstream adds it."""

import pytest
import torch
from conftest import hidden_states
from test_stages import MODEL, run

from thinksteer import models, store
from thinksteer.annotation import LABELS, annotate
from thinksteer.annotations import AnnotationLog
from thinksteer.methods import METHODS
from thinksteer.records import EVERYWHERE
from thinksteer.thinking import Reader

FLAGS = ("--min_examples", 1)
CONTROLS = ("deduction", "uncertainty-estimation")
ONSETS = tuple(f"{label}.onset" for label in CONTROLS)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    run("generate_responses.py", "--artifacts", root, "--n_questions", 60, "--max_length", 300)
    run("extract_directions.py", "--artifacts", root, "--control", *CONTROLS, *ONSETS, *FLAGS)
    return root


@pytest.fixture(scope="module")
def reader(root):
    ref = models.resolve(MODEL, root)
    return Reader.of(ref.template, models.load_tokenizer(ref))


def responses(root):
    return store.responses_path(root, MODEL, "arithmetic")


def plain_means(root, passages, label):
    """Means over sections, each of [start - 1, min(end - 1, start + 10)), and over whole passages: `[L, D]`."""
    model = models.load_model(models.resolve(MODEL, root), "cpu", "float32").double()
    own, whole = [], []
    for passage in passages:
        states = torch.stack(hidden_states(model, passage.ids)[1:])  # [L, T, D]
        first, last = min(span.start for span in passage.spans), max(span.end for span in passage.spans)
        whole.append(states[:, first:last].mean(1))
        for span in passage.spans:
            if span.label == label:
                own.append(states[:, span.start - 1 : min(span.end - 1, span.start + 10)].mean(1))
    return torch.stack(own).mean(0), torch.stack(whole).mean(0), len(own)


@pytest.mark.parametrize("label", CONTROLS)
def test_a_direction_is_the_labels_mean_minus_the_overall_mean_as_long_as_that(root, reader, label):
    passages = METHODS[label].passages(store.read_records(responses(root)), None, reader)
    own, whole, count = plain_means(root, passages, label)
    wanted = (own - whole) * whole.norm(dim=-1, keepdim=True) / (own - whole).norm(dim=-1, keepdim=True)
    tensors, about = store.read_safetensors(store.direction_path(root, MODEL, label))
    torch.testing.assert_close(tensors["direction"].double(), wanted, rtol=1e-4, atol=1e-4)
    assert (int(about[f"n_{label}"]), int(about["n_overall"])) == (count, len(passages))


@pytest.mark.parametrize("label", CONTROLS)
def test_an_onset_is_the_token_before_minus_that_before_all_other_sections(root, reader, label):
    model = models.load_model(models.resolve(MODEL, root), "cpu", "float32").double()
    own, others = [], []
    for passage in METHODS[label].passages(store.read_records(responses(root)), None, reader):
        states = torch.stack(hidden_states(model, passage.ids)[1:])
        for span in passage.spans:
            (own if span.label == label else others).append(states[:, span.start - 1])
    wanted = torch.stack(own).mean(0) - torch.stack(others).mean(0)
    found = store.read_direction(store.direction_path(root, MODEL, f"{label}.onset"))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def test_other_annotations_and_no_rescaling_are_flags(root, reader):
    # An annotator that knows one behaviour only: the first word, one token, of each of 20 responses.
    records = store.read_records(responses(root))[:20]
    path = store.annotations_path(root, responses(root), "first")
    with store.run(path, {}, [responses(root)], False), AnnotationLog(path) as log:
        for record in records:
            word = record.response.partition("<think>\n")[2].partition(":")[0]
            log.append(annotate(record, reader, f'["backtracking"]{word}["end-section"]'))
    flags = ("--control", "backtracking", "--annotations", "first", "--unscaled", "--name", "first", *FLAGS)
    run("extract_directions.py", "--artifacts", root, *flags)
    found = METHODS["backtracking"].passages(records, None, reader)  # for the ids alone
    starts = {passage.id: reader.read(record)[1].opened for passage, record in zip(found, records, strict=True)}
    model = models.load_model(models.resolve(MODEL, root), "cpu", "float32").double()
    states = {one.id: torch.stack(hidden_states(model, one.ids)[1:]) for one in found}
    tensors, about = store.read_safetensors(store.direction_path(root, MODEL, "first"))
    assert about["annotations"] == "first" and about["n_backtracking"] == "20"
    skipped = {id: start + 1 for id, start in starts.items()}  # the line break after the delimiter
    # A section of one token is read at the token before it, and is all that the overall mean knows.
    wanted = torch.stack([states[id][:, at - 1] - states[id][:, at] for id, at in skipped.items()]).mean(0)
    torch.testing.assert_close(tensors["direction"].double(), wanted, rtol=1e-4, atol=1e-4)


def test_upstreams_layers_are_known_and_others_are_at_a_like_depth():
    layers = {name: [METHODS[name].layer(depth) for depth in (28, 32, 48)] for name in LABELS}
    assert layers["backtracking"] == [17, 12, 29] and layers["adding-knowledge"] == [18, 12, 24]
    assert layers["uncertainty-estimation"] == [18, 12, 29] and layers["example-testing"] == [15, 12, 29]
    assert METHODS["deduction"].layer(28) == 17 and METHODS["backtracking"].layer(10) == 6
    for name in LABELS:
        method = METHODS[name]
        assert (method.where(None), method.weights, method.labels) == (EVERYWHERE, (-1.0, 0.0, 1.0), [name])
        assert sorted(METHODS[f"{name}.onset"].labels) == sorted(LABELS)
        assert METHODS[f"{name}.onset"].layer(28) == method.layer(28)
