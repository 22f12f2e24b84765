"""Where chains are broken off, on texts in which every character is a token, and what answers share."""

from dataclasses import replace

import pytest
import torch
from synthetic import character_marks, record
from test_engines_hf import TEMPLATE, make_tokenizer
from tokenizers.processors import TemplateProcessing

from thinksteer.confidence import Chain, Fork, Tree, chain, forks, tails
from thinksteer.records import InputError, Record
from thinksteer.thinking import Reader

CLOSING, SUFFIX = (1, 2), (2,)


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def reader() -> Reader:
    def decode(tokens) -> str:
        return "".join(map(chr, tokens))

    return Reader(ids, decode, lambda: [], character_marks("<<", ">>"))


def response(text: str, status: str, **more) -> Record:
    length = text.index(">>") + 2 - max(text.find("<<"), 0) if status == "closed" else None
    made = record("q", 3, 0, status=status, response=text)
    made = replace(made, prompt="a prompt", token_ids=ids(text), finish_reason="length", prediction=None)
    return replace(made, **{"thinking_tokens": length} | more)


def places(made: Record, every: int = 4) -> dict[str, list[int]]:
    """Where the thinking is closed by the tail, and where it is not."""
    found = forks(made, reader(), every, CLOSING, SUFFIX)
    return {name: [one.at for one in found if one.tail == tail] for name, tail in (("open", CLOSING), ("not", SUFFIX))}


def test_forks_go_to_the_end_of_the_thinking_which_needs_no_closing():
    # begins at 0, is open from 2 to 13, ends at 15
    made = response("<<abcdefghijk>> so 47", "closed")
    assert places(made) == {"open": [4, 8, 12], "not": [0, 15]}
    assert places(made, every=100) == {"open": [], "not": [0, 15]}
    found = forks(made, reader(), 4, CLOSING, SUFFIX)
    assert [fork.at for fork in found] == [0, 4, 8, 12, 15], "in order"


def test_no_fork_lies_inside_a_delimiter():
    made = response("<<abcdefghijk>> so 47", "closed")
    assert places(made, every=1) == {"open": list(range(2, 14)), "not": [0, 15]}
    late = response("oh <<ab>>", "closed")
    assert places(late, every=1) == {"open": [5, 6, 7], "not": [0, 1, 2, 3, 9]}


def test_thinking_that_the_prompt_opened_is_open_from_the_start():
    made = response("abcdef>> 47", "closed", thinking_tokens=10)
    made = replace(made, prompt="a prompt<<")
    assert places(made) == {"open": [0, 4], "not": [8]}


def test_unfinished_thinking_ends_where_it_was_cut_before_what_was_forced():
    capped = response("<<abcdefghij", "capped")
    assert places(capped) == {"open": [4, 8, 12], "not": [0]}
    forced = response("<<abcdefghij>> 47", "capped", forced_at=11)
    assert places(forced) == {"open": [4, 8, 11], "not": [0]}


def test_thinking_that_stopped_by_itself_ends_before_its_last_token():
    made = response("<<abcdefghijE", "eos_open", finish_reason="stop")
    assert places(made, every=5) == {"open": [5, 10, 12], "not": [0]}


def test_an_answer_forced_behind_closed_thinking_changes_nothing():
    made = response("<<abcdefghijk>> so it is 47", "closed", forced_at=19)
    assert places(made) == {"open": [4, 8, 12], "not": [0, 15]}


@pytest.mark.parametrize(
    "text, prediction, end",
    [
        ("first 12, then \\boxed{47}E", "47", 15),
        ("47 at first, so \\boxed{ 47 }E", "47", 16),
        ("so it is 47.E", "47", 9),
        ("\\boxed 5E", "5", 0),
        ("no answer hereE", None, 14),
        ("one half0.5 E", "1/2", 12),  # read otherwise than it stands there
    ],
)
def test_a_response_without_thinking_ends_before_its_stated_answer(text, prediction, end):
    made = response(text, "no_think", finish_reason="stop", prediction=prediction)
    assert places(made, every=5) == {"open": [], "not": sorted({*range(0, end, 5), end})}


def test_a_stated_answer_is_whole_tokens_away():
    """Three characters a token: the answer begins inside the third."""
    threes = replace(reader(), decode=lambda tokens: "".join(chr(token) * 3 for token in tokens))
    made = response("abc", "no_think", prediction="cc")
    made = replace(made, token_ids=ids("abccE"), finish_reason="stop")
    # "aaabbbcccccc": the last match of "cc" begins at 10, inside the fourth token
    assert [fork.at for fork in forks(made, threes, 10, CLOSING, SUFFIX)] == [0, 3]


def test_a_chain_is_its_records_tokens():
    made = response("<<abcdefghijk>> so 47", "closed")
    found = chain(made, reader(), 4, CLOSING, SUFFIX)
    assert found == Chain("q", 3, ids("a prompt"), made.token_ids, forks(made, reader(), 4, CLOSING, SUFFIX))


def test_a_record_of_another_model_is_refused():
    with pytest.raises(InputError, match="pass the --template"):
        forks(response("abc", "capped"), reader(), 4, CLOSING, SUFFIX)


def test_a_place_outside_the_response_is_refused():
    with pytest.raises(InputError, match="q sample 1 has 3 tokens and no place 4"):
        Chain("q", 1, (1,), (1, 2, 3), (Fork(3, (1,)), Fork(4, (1,))))
    with pytest.raises(InputError, match="q sample 1 has an empty prompt"):
        Chain("q", 1, (), (1, 2, 3), (Fork(3, (1,)),))
    with pytest.raises(InputError, match="no place -1"):
        Chain("q", 1, (1,), (1, 2, 3), (Fork(-1, (1,)),))


def test_tails_close_the_thinking_on_a_line_of_its_own_and_begin_no_text():
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="< $A", special_tokens=[("<", 1)])
    unknown, close, b, o, x = tokenizer.convert_tokens_to_ids([*"?Cbox"])
    assert tokenizer("box").input_ids == [1, b, o, x]
    assert tails(TEMPLATE, tokenizer, "box") == ((unknown, close, b, o, x), (b, o, x)), "a line break is no token there"


def test_a_tree_has_each_beginning_once_behind_its_own():
    tree = Tree([(4, 1, 2), (5,), (4, 1), (4, 3), (5, 5)])
    assert tree.branches == {(): [4, 5], (4,): [1, 3], (4, 1): [2], (5,): [5]}
    # steps: 4, 5 | 1, 3 after 4 | 2 after 4 1 | 5 after 5
    steps = torch.tensor([[1.0, 10, 100, 1000, 10_000, 100_000], [0, 1, 0, 0, 0, 2]])
    assert tree.answers(steps).tolist() == [[10_101, 10, 101, 1001, 100_010], [0, 1, 0, 0, 3]]


@pytest.mark.parametrize("answers", [[], [(1,), ()]])
def test_answers_have_tokens(answers):
    with pytest.raises(InputError, match="nothing to weigh"):
        Tree(answers)
