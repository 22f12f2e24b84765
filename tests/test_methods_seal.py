"""SEAL's thoughts: where they begin and end, what they are called, where they are read and steered."""

from dataclasses import replace

import pytest
from synthetic import marks_of, record

from thinksteer import models
from thinksteer.activations import read_at
from thinksteer.methods import METHODS, PENALTIES
from thinksteer.methods.method import labelled
from thinksteer.methods.seal import KEYWORDS, ThoughtRule, classify
from thinksteer.records import Condition, InputError, Span
from thinksteer.steering import Gate
from thinksteer.thinking import Follower, Reader

SEAL = METHODS["seal"]
# One token a character or mark; 3, 4 and 5 hold a blank line, 6 a single line break.
TEXTS = [
    "<q>",
    "<think>",
    "</think>",
    "\n\n",
    ".\n\n",
    "\n\n\n",
    "\n",
    "Wait",
    "Alternatively",
    " x",
    " = 2",
    " verify",
]
Q, OPEN, CLOSE, BLANK, DOT_BLANK, MORE, LINE, WAIT, OTHER, X, TWO, VERIFY = range(len(TEXTS))
READER = Reader(
    lambda prompt: tuple(map(int, prompt.split())),
    lambda ids: "".join(TEXTS[token] for token in ids),
    lambda: TEXTS,
    marks_of(TEXTS, "<think>", "</think>"),
)
CASES = {  # text -> label by the lists named "upstream", "corrected", "code", "easysteer"
    "Wait, another way": "RRRT",
    "Alternatively, verify this": "RRRT",
    "Waiter!": "RRRR",
    "  wait": "RRRR",
    "I wait": "EERR",
    "another APPROACH": "TTTT",
    "or, alternatively, 3": "EETT",
    "think differently": "ETTT",
    "think differenly": "TEEE",
    "That's correct": "RRRR",
    "Hmm, 3": "EERE",
    "another thing, instead": "EETE",
    "x = 2": "EEEE",
    "": "EEEE",
}


def response(*ids: int, name: str = "q", prompt: tuple[int, ...] = (Q,), correct: bool = True, status: str = "closed"):
    length = ids.index(CLOSE) - ids.index(OPEN) + 1 if status == "closed" else None
    made = record(name, length=length or len(ids), correct=correct, status=status)
    return replace(made, prompt=" ".join(map(str, prompt)), token_ids=ids, response_tokens=len(ids))


def spans(*records):
    return [passage.spans for passage in SEAL.passages(records, ThoughtRule(), READER)]


@pytest.mark.parametrize("text", CASES)
def test_each_list_of_keywords_labels_a_thought_as_its_authors_do(text):
    names = {"E": "execution", "R": "reflection", "T": "transition"}
    found = [classify(text, ThoughtRule(keywords)) for keywords in ("upstream", "corrected", "code", "easysteer")]
    assert found == [names[letter] for letter in CASES[text]]


def test_upstreams_typo_is_all_that_the_corrected_list_changes():
    parts = {name: [part for marks in KEYWORDS[name] for part in marks.parts] for name in ("upstream", "corrected")}
    assert set(parts["upstream"]) ^ set(parts["corrected"]) == {"think differenly", "think differently"}
    assert len(parts["upstream"]) == len(parts["corrected"]) == 15


def test_a_thought_lies_between_two_tokens_with_a_blank_line():
    one = response(OPEN, X, DOT_BLANK, WAIT, X, BLANK, X, LINE, TWO, MORE, OTHER, CLOSE, BLANK, TWO)
    # Q OPEN x .BLANK | Wait x | BLANK | x LINE 2 | MORE | Alternatively | CLOSE: the prompt has one token.
    assert spans(one) == [(Span("reflection", 4, 6), Span("execution", 7, 10), Span("transition", 11, 12))]


def test_it_is_read_at_the_blank_line_that_opens_it():
    one = response(OPEN, X, DOT_BLANK, WAIT, X, BLANK, X, CLOSE)
    (passage,) = read_at(SEAL.passages([one], ThoughtRule(), READER), SEAL.reading)
    assert [passage.ids[span.start] for span in passage.spans] == [DOT_BLANK, BLANK]
    assert all(span.end == span.start + 1 for span in passage.spans)


def test_blank_lines_of_the_question_and_of_the_answer_open_no_thought():
    one = response(X, OPEN, X, BLANK, TWO, CLOSE, BLANK, WAIT, BLANK, X, prompt=(Q, BLANK, WAIT, BLANK))
    (found,) = spans(one)
    assert found == (Span("execution", 8, 9),)


def test_nothing_between_two_blank_lines_is_no_thought():
    assert spans(response(OPEN, X, BLANK, BLANK, X, CLOSE)) == [(Span("execution", 5, 6),)]


def test_a_chain_that_never_closed_counts_as_far_as_it_got():
    cut = response(OPEN, X, BLANK, WAIT, status="capped")
    assert spans(cut) == [(Span("reflection", 4, 5),)]
    forced = replace(cut, token_ids=(*cut.token_ids, BLANK, CLOSE, X), forced_at=4, finish_reason="length")
    assert spans(forced) == [(Span("reflection", 4, 5),)]


def test_the_first_so_many_correct_and_incorrect_responses_are_used():
    made = [response(OPEN, X, BLANK, X, CLOSE, name=f"q{i}", correct=i % 3 == 0) for i in range(12)]
    found = SEAL.passages(made, ThoughtRule(n_correct=2, n_incorrect=3), READER)
    assert [one.id for one in found] == ["q0", "q3", "q1", "q2", "q4"]
    assert len(SEAL.passages(made, ThoughtRule(n_correct=None, n_incorrect=None), READER)) == 12
    ungraded = [replace(one, id=f"open {one.id}", kind="open", correct=False) for one in made]
    both = SEAL.passages([*made, *ungraded], ThoughtRule(n_correct=2, n_incorrect=3), READER)
    assert both[:5] == found and [one.id for one in both[5:]] == [one.id for one in ungraded]


def test_a_control_needs_examples_of_its_own_labels_only():
    made = [response(OPEN, X, BLANK, WAIT, BLANK, X, CLOSE)]
    assert labelled([METHODS["seal_reflection"]], made, ThoughtRule(), READER, 1)
    with pytest.raises(InputError, match=r"seal_transition.*1 execution and 0 transition.*generate more"):
        labelled([METHODS["seal_transition"]], made, ThoughtRule(), READER, 1)


def test_it_acts_at_blank_lines_inside_the_thinking_alone():
    where = SEAL.where(READER)
    ids = [Q, BLANK, OPEN, X, BLANK, WAIT, LINE, DOT_BLANK, X, CLOSE, MORE, X]
    (held,) = Gate([where], Follower(2, READER.marks)).mask(ids, 0, len(ids))
    assert [place for place, acts in enumerate(held) if acts] == [4, 7]
    assert where == Condition(text="\n\n", in_thinking=True)


def test_directions_point_to_execution_from_one_or_both_of_the_others():
    others = {"seal": [("reflection", "transition")], "seal_reflection": [("reflection",)]}
    others |= {"seal_transition": [("transition",)], "seal_sum": [("reflection",), ("transition",)]}
    for name, labels in others.items():
        assert METHODS[name].terms == {("execution",): 1} | dict.fromkeys(labels, -1)
        assert METHODS[name].weights == (0.0, 1.0)


@pytest.mark.parametrize("num_layers, block", [(28, 19), (64, 54), (6, 3), (48, 33)])
def test_the_published_layers_are_entries_of_hidden_states(num_layers, block):
    assert SEAL.layer(num_layers) == block  # hidden_states[block + 1]


def test_the_embedded_models_thoughts_are_found_in_its_own_tokens():
    ref = models.resolve("tiny-reasoner", models.TINY_REASONER)
    tokenizer = models.load_tokenizer(ref)
    reader = Reader.of(ref.template, tokenizer)
    text = "<think>\nMonday: 3+4=7.\n\nWait, let me check. 7-4=3. Yes.\n\nTuesday: 7+2=9.\n</think>\n\n\\boxed{9}"
    ids = (*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id)
    length = ids.index(tokenizer.convert_tokens_to_ids("</think>")) + 1
    one = replace(record("q", length=length), prompt="<｜User｜>a\n\nb<｜Assistant｜>", token_ids=ids)
    (passage,) = SEAL.passages([one], ThoughtRule(), reader)
    texts = [(span.label, reader.decode(passage.ids[span.start : span.end])) for span in passage.spans]
    assert texts == [("reflection", "Wait, let me check. 7-4=3. Yes."), ("execution", "Tuesday: 7+2=9.\n")]


def test_a_penalty_finds_its_words_in_every_case_and_as_parts_of_tokens():
    words = PENALTIES["seal_penalty"].words
    reader = replace(
        READER, vocabulary=lambda: ["Wait", " wait", "WAITING", "a wait", "await", "wai", "Alternatively,"]
    )
    assert reader.tokens_with(words) == {0, 1, 2, 3, 4, 6}
