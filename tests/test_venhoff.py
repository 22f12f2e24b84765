"""Small files of the shapes that Venhoff et al. publish, read back, and refused where they are of another."""

import json
import pickle
import sys

import pytest
import torch

from scripts import behaviour_effects, import_behaviours
from thinksteer import models, store
from thinksteer.annotations import read_annotations
from thinksteer.intervals import mean
from thinksteer.records import InputError
from thinksteer.thinking import TEMPLATES, Reader
from thinksteer.venhoff import LayerEffects, MeanVectors, Responses, Steered, load, split

LAYERS, HIDDEN = 6, 128  # the embedded model's
BACK, UNSURE = "backtracking", "uncertainty-estimation"
DEEPSEEK = TEMPLATES["deepseek"]


def vectors(layers=LAYERS, hidden=HIDDEN, **changed):
    generator = torch.Generator().manual_seed(0)
    labels = {"overall": 40, BACK: 12, UNSURE: 30, "summarizing": 1}
    made = {label: torch.randn(layers, hidden, generator=generator) for label in labels}
    return {label: {"mean": made[label], "count": count} for label, count in labels.items()} | changed


EFFECTS = {
    BACK: [[0.1, 0.5, 0.2], [0.3, 0.7, 0.4], None, [0.1, 0.2], [0.1, float("nan"), 0.3]],
    UNSURE: [[torch.tensor(1.0), 2.0, 3.0], torch.tensor([1.0, 2.0, 5.0])],
    "example-testing": [],
}
THOUGHT = "Tom has 5.\n5+4=9.\nWait, let me check. 9-4=5. Yes."
ANNOTATED = (
    '["initializing"]Tom has 5.["end-section"]["deduction"]5+4=9.["end-section"]'
    '["uncertainty-estimation"]Wait, let me check. 9-4=5. Yes.["end-section"]["summarizing"]Nowhere.["end-section"]'
)


def conversation(question, thought=THOUGHT, closed=True):
    """Prompt and response as upstream decodes them; its chat template opens the thinking in the prompt."""
    return f"<｜User｜>{question}<｜Assistant｜><think>\n{thought}" + "\n</think>\n\nThe answer is 9." * closed


def item(question, annotated=ANNOTATED, closed=True):
    return {
        "original_message": {"role": "user", "content": question},
        "full_response": conversation(question, closed=closed),
        "thinking_process": THOUGHT,
        "annotated_thinking": annotated,
    }


def answer(question, annotated=ANNOTATED):
    fractions = {BACK: 0.0, UNSURE: 1.0}
    text = conversation(question)
    return {
        "response": text,
        "thinking_process": THOUGHT,
        "label_fractions": fractions,
        "annotated_response": annotated,
    }


RESPONSES = [item("How many?"), item("How much?", closed=False), item("How many?", annotated=None)]
STEERED = {
    label: [{name: answer(question) for name in ("original", "positive", "negative")} for question in ("Q1?", "Q2?")]
    for label in (BACK, UNSURE)
}


@pytest.fixture
def saved(tmp_path):
    def saved(value, name="file"):
        """A JSON file of texts, else one of torch.save."""
        path = tmp_path / name
        try:
            path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
        except (TypeError, ValueError):
            torch.save(value, path)
        return path

    return saved


@pytest.fixture
def imported(monkeypatch, capsys, tmp_path):
    root = tmp_path / "artifacts"

    def imported(*files, **flags):
        flags = [text for name, value in flags.items() for text in (f"--{name}", *([] if value is True else [value]))]
        monkeypatch.setattr(sys, "argv", ["import", *map(str, [*files, "--artifacts", root, *flags])])
        import_behaviours.main()
        return root, capsys.readouterr().out

    return imported


def test_what_a_file_is_is_told_by_its_content(saved):
    kinds = [type(load(saved(value))) for value in (vectors(), EFFECTS, RESPONSES, STEERED)]
    assert kinds == [MeanVectors, LayerEffects, Responses, Steered]


def test_directions_are_differences_from_the_overall_mean_as_long_as_that(saved, imported):
    root, out = imported(saved(vectors(), "mean.pt"))
    raw = vectors()
    tensors, about = store.read_safetensors(store.direction_path(root, "tiny-reasoner", BACK))
    difference = (raw[BACK]["mean"] - raw["overall"]["mean"]).double()
    wanted = torch.nn.functional.normalize(difference) * raw["overall"]["mean"].double().norm(dim=1, keepdim=True)
    assert tensors["direction"].dtype == torch.float32
    assert torch.allclose(tensors["direction"].double(), wanted, atol=1e-5)
    assert about["method"] == BACK and about["read_site"] == "block_out" and about[f"n_{BACK}"] == "12"
    assert about["n_overall"] == "40" and len(about["origin_sha256"]) == 64
    made = sorted(path.name for path in (root / "directions" / "tiny-reasoner").glob("*.safetensors"))
    assert made == [f"{BACK}.safetensors", f"{UNSURE}.safetensors"]  # neither the overall mean nor what is no label
    assert out.count("norm") == 2


def test_unscaled_directions_keep_their_length(saved, imported):
    root, _ = imported(saved(vectors(), "mean.pt"), unscaled=True)
    raw = vectors()
    direction = store.read_direction(store.direction_path(root, "tiny-reasoner", UNSURE))
    assert torch.equal(direction, raw[UNSURE]["mean"] - raw["overall"]["mean"])


def test_vectors_of_another_model_are_refused(saved, imported):
    with pytest.raises(InputError, match=r"mean\.pt has .* \[5, 128\], tiny-reasoner has \[6, 128\]"):
        imported(saved(vectors(layers=5), "mean.pt"))


def test_layer_effects_are_means_over_whole_examples(saved, imported):
    found = load(saved(EFFECTS))
    assert found.effects[BACK] == ((0.1, 0.5, 0.2), (0.3, 0.7, 0.4))
    assert found.left_out == {BACK: 3, UNSURE: 0, "example-testing": 0}
    root, out = imported(saved(EFFECTS), dataset="tasks")
    path = store.layer_effects_path(root, "tiny-reasoner", "tasks", f"{BACK}.upstream")
    about = store.read_json(path)
    assert [one["upstream"]["value"] for one in about["layers"]] == pytest.approx([0.2, 0.6, 0.3])
    assert about["strongest"] == 1 and about["n_examples"] == 2 and about["n_left_out"] == 3
    wanted = mean(["a", "b"], [0.1, 0.3], None)
    assert about["layers"][0]["upstream"] == pytest.approx(vars(wanted)) and store.figure_path(path).is_file()
    assert "3 left out" in out and "largest after block 1" in out and "example-testing: no example" in out
    assert "largest after block 2, upstream steers none that we know of" in out


def test_a_published_layer_stands_beside_the_largest_effect(saved, imported):
    effects = {BACK: [[float(layer == 18) for layer in range(28)]] * 3}
    assert "largest after block 18, upstream steers after block 17" in imported(saved(effects))[1]


def test_responses_become_records_that_read_as_they_were_recorded(saved, imported):
    root, out = imported(saved(RESPONSES), dataset="tasks")
    path = store.responses_path(root, "tiny-reasoner", "tasks")
    first, second, third = store.read_records(path)
    ref = models.resolve("tiny-reasoner", root)
    tokenizer = models.load_tokenizer(ref)
    reader = Reader.of(ref.template, tokenizer)
    for record in (first, second, third):
        ids, _ = reader.inside(record)  # InputError if it does not
        assert record.prompt == f"<｜User｜>{record.question}<｜Assistant｜>" and record.kind == "open"
        assert ids[0] == tokenizer.bos_token_id and record.response_tokens == len(record.token_ids)
        assert record.response.startswith(f"<think>\n{THOUGHT}")
    assert (first.status, first.finish_reason, second.status, second.finish_reason) == (
        *("closed", "stop"),
        *("capped", "length"),
    )
    assert first.token_ids[-1] == tokenizer.eos_token_id != second.token_ids[-1]
    assert first.id == third.id != second.id and (first.sample, third.sample) == (0, 1)
    annotations = read_annotations(store.annotations_path(root, path, "upstream"), path)
    labels = [[part.label for part in annotations[one.id, one.sample].sections] for one in (first, second, third)]
    assert labels == [["initializing", "deduction", UNSURE]] * 2 + [[]]
    [part] = annotations[first.id, 0].sections[1:2]
    assert first.response[part.start : part.end] == "5+4=9."
    assert tokenizer.decode(first.token_ids[part.first : part.last]).strip() == "5+4=9."
    assert annotations[first.id, 0].unmatched == ("summarizing: Nowhere.",)
    assert "3 responses, 6 sections, 2 more were found nowhere" in out


def test_ids_are_the_questions_whatever_the_order(saved, imported):
    root, _ = imported(saved(RESPONSES), dataset="tasks")
    imported(saved(RESPONSES[::-1]), dataset="again")
    both = [store.read_records(store.responses_path(root, "tiny-reasoner", name)) for name in ("tasks", "again")]
    first, again = ({record.question: record.id.partition("-")[2] for record in records} for records in both)
    assert first == again and len(set(first.values())) == 2


def test_steered_responses_become_sweeps_whose_effects_can_be_measured(saved, imported, monkeypatch, capsys):
    root, _ = imported(saved(STEERED), dataset="tasks")
    for label in (BACK, UNSURE):
        paths = [store.steering_path(root, "tiny-reasoner", "tasks", label, weight, None) for weight in (-1, 0, 1)]
        runs = [store.read_records(path) for path in paths]
        assert [[record.question for record in run] for run in runs] == [["Q1?", "Q2?"]] * 3
        assert {len({record.id for record in run}) for run in runs} == {2}
    flags = ["--artifacts", str(root), "--dataset", "tasks", "--annotations", "upstream"]
    monkeypatch.setattr(sys, "argv", ["effects", *flags])
    behaviour_effects.main()
    assert f"{BACK}, weight +1: 0.0 % -> 0.0 % of the tokens" in capsys.readouterr().out
    imported(saved(STEERED), dataset="tasks")  # again: nothing to do
    with pytest.raises(InputError, match="made otherwise"):
        imported(saved({BACK: STEERED[BACK][:1]}), dataset="tasks")


def test_positive_and_negative_steering_are_not_swapped(saved, imported):
    answers = {name: answer(name) for name in ("negative", "original", "positive")}
    root, _ = imported(saved({BACK: [answers]}))
    for weight, name in ((-1.0, "negative"), (0.0, "original"), (1.0, "positive")):
        [record] = store.read_records(store.steering_path(root, "tiny-reasoner", "venhoff_tasks", BACK, weight, None))
        assert record.question == name
        settings = store.run_settings(store.steering_path(root, "tiny-reasoner", "venhoff_tasks", BACK, weight, None))
        assert settings["weight"] == weight and settings["max_length"] == 1000


@pytest.mark.parametrize(
    "text, question, response",
    [
        ("<｜User｜>Why?<｜Assistant｜><think>\na", "Why?", "<think>\na"),
        ("<｜User｜>Why?<｜Assistant｜>So.", "Why?", "So."),
        ("Why? \n<think>\na", "Why?", "<think>\na"),  # the marks were special tokens
        ("So.", "", "So."),
    ],
)
def test_a_conversation_is_split_at_the_mark_of_the_response(text, question, response):
    assert split(text, DEEPSEEK) == (question, response)


@pytest.mark.parametrize(
    "template, asked, text, expected",
    [
        ("plain", "Q?", "Q? A.", ("Q?", " A.")),  # a base model's prompt is the question alone
        ("plain", "Q?", "A.", ("", "A.")),
        ("plain", None, "Q? A.", ("", "Q? A.")),
        ("plain", "", "A.", ("", "A.")),
        ("qwq", None, "Why?\n<think>\na</think>b", ("Why?", "a</think>b")),  # what opens it is the prompt's
        ("qwq", "Why?", "a</think>b", ("", "a</think>b")),
        ("deepseek", "a<｜Assistant｜>b", "<｜User｜>a<｜Assistant｜>b<｜Assistant｜>c", ("a<｜Assistant｜>b", "c")),
    ],
)
def test_a_conversation_is_split_behind_its_prompt_where_that_is_known(template, asked, text, expected):
    assert split(text, TEMPLATES[template], asked) == expected


@pytest.mark.parametrize("annotated", [None, ""])
def test_a_base_models_responses_follow_their_questions(saved, imported, annotated):
    value = [{"original_message": "Q?", "full_response": "Q? A.", "annotated_thinking": annotated}]
    root, _ = imported(saved(value), template="plain")
    [record] = store.read_records(store.responses_path(root, "tiny-reasoner", "venhoff_tasks"))
    assert (record.prompt, record.response, record.status) == ("Q?", " A.", "no_think")
    imported(saved({BACK: [dict.fromkeys(("original", "positive", "negative"), answer("Q"))]}), template="plain")


def test_means_of_no_known_label_are_refused(saved, imported):
    value = vectors()
    with pytest.raises(InputError, match=r"mean\.pt has the means of overall, summarizing: of none of the labels"):
        imported(saved({label: value[label] for label in ("overall", "summarizing")}, "mean.pt"))


def test_responses_whose_prompt_opened_the_thinking_are_read_with_the_flag(saved, imported):
    texts = [f"{THOUGHT}\n</think>\n\nThe answer is 9.", f"<think>\n{THOUGHT}\n</think>\n\n9.", THOUGHT]
    value = [item(f"Q{number}?") | {"full_response": text} for number, text in enumerate([texts[0], *texts])]
    with pytest.raises(InputError, match=r"2 of 4 responses hold </think> without <think> .*: give --opened_in_prompt"):
        imported(saved(value))
    root, out = imported(saved(value), opened_in_prompt=True)
    records = store.read_records(store.responses_path(root, "tiny-reasoner", "venhoff_tasks"))
    assert [record.status for record in records] == ["closed", "closed", "closed", "capped"]
    assert all(record.prompt.endswith("<｜Assistant｜><think>\n") for record in records)
    assert "12 sections" in out


def test_a_tokenizer_without_eos_makes_no_token_of_it(saved, imported, monkeypatch):
    load_tokenizer = models.load_tokenizer

    def without(*args):
        tokenizer = load_tokenizer(*args)
        tokenizer.eos_token = None
        return tokenizer

    monkeypatch.setattr(models, "load_tokenizer", without)
    root, _ = imported(saved([item("Q?")]))
    [record] = store.read_records(store.responses_path(root, "tiny-reasoner", "venhoff_tasks"))
    assert record.status == "closed" and record.finish_reason == "length"


class Hostile:
    def __reduce__(self):
        return print, ("executed",)


def test_code_in_a_file_is_not_executed(tmp_path, capsys):
    torch.save({BACK: Hostile()}, tmp_path / "code.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({BACK: Hostile()}))
    for name in ("code.pt", "bare.pt"):
        with pytest.raises(InputError, match=f"{name} is no tensor file, or holds code"):
            load(tmp_path / name)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "value, why",
    [
        (
            vectors(**{BACK: {"mean": torch.zeros(LAYERS, 3), "count": 1}}),
            r"backtracking.mean is \[6, 3\], .*\[6, 128\]",
        ),
        (vectors(**{BACK: {"mean": torch.full((LAYERS, HIDDEN), torch.nan), "count": 1}}), "not finite"),
        (vectors(**{BACK: {"mean": [1.0], "count": 1}}), r"backtracking.mean is \[1.0\], not a floating-point tensor"),
        (vectors(**{BACK: {"mean": torch.ones(LAYERS, HIDDEN, dtype=int), "count": 1}}), "not a floating-point tensor"),
        (vectors(**{BACK: {"mean": torch.ones(0, HIDDEN), "count": 1}}), "not a floating-point tensor"),
        (vectors(overall={"mean": 3, "count": 1}), "overall.mean is 3"),
        (vectors(**{BACK: {"mean": torch.ones(LAYERS, HIDDEN), "count": 2.5}}), "backtracking.count is 2.5"),
        (vectors(**{BACK: {"mean": torch.ones(LAYERS, HIDDEN), "count": True}}), "backtracking.count is True"),
        ({BACK: vectors()[BACK]}, "the file has no 'overall'"),
        ({BACK: {"average": torch.zeros(2, 2)}}, "backtracking has no 'mean'"),
        ({3: [[torch.ones(1)]]}, "the label 3 is 3, not text"),
        ({BACK: [None, [float("nan")]]}, "no example with an effect"),
        ({BACK: ["text"]}, r"backtracking\[0\] is 'text', not a list of numbers"),
        ({BACK: [[0.1, "0.2"]]}, "not a list of numbers"),
        ({BACK: [[0.1, True]]}, "not a list of numbers"),
        ({BACK: 3}, "backtracking is 3, not a list"),
        ([], r"the file is \[\], not a list of responses or"),
        ([{"original_message": "a"}], r"\[0\] has no 'full_response'"),
        ([item("Q") | {"original_message": 3}], r"\[0\].original_message is 3, not text"),
        ([item("Q") | {"original_message": []}], r"\[0\].original_message is \[\], not text"),
        ([item("Q") | {"original_message": {"content": None}}], r"\[0\].original_message.content is None"),
        ([item("Q"), item("Q") | {"full_response": None}], r"\[1\].full_response is None, not text"),
        ([item("Q") | {"full_response": "\ud800"}], "half a character"),
        ([item("Q") | {"annotated_thinking": ["a"]}], r"\[0\].annotated_thinking is \['a'\], not text"),
        ([3], r"\[0\] is 3, not an object"),
        ({BACK: [{"original": answer("Q")}, 5]}, "has no 'negative'"),
        (STEERED | {UNSURE: []}, r"uncertainty-estimation is \[\], not a list of responses"),
    ],
)
def test_another_layout_is_one_clear_error(saved, value, why):
    with pytest.raises(InputError, match=rf"file is not laid out as upstream writes .*: .*{why}"):
        load(saved(value))


def test_a_steering_file_without_one_of_its_settings_is_refused(saved):
    path = saved({BACK: [{"original": answer("Q"), "positive": answer("Q")}]})
    with pytest.raises(InputError, match="negative"):
        load(path)
    with pytest.raises(InputError, match="cannot be read"):
        load(path.with_name("absent.pt"))
