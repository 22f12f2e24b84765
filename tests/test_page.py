from html.parser import HTMLParser

from tests.synthetic import evaluation, record
from thinksteer.comparison import Family, Member
from thinksteer.document import POLICY
from thinksteer.page import Picture, Section, examples, page, picked
from thinksteer.tables import Column, Table

HOSTILE = "<script>alert('x')</script><img src=https://example.org/x.png onerror=alert(1)>&"
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects tags and their attributes, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def hostile_family() -> Family:
    base = [record(f"q{index:02d}", length=10 + index, correct=False, response=HOSTILE) for index in range(20)]
    edited = [record(f"q{index:02d}", length=50, response=HOSTILE * 100) for index in range(20)]
    return Family(HOSTILE, (Member(HOSTILE, "base", base, 99), Member("edit", "edited", edited, 99)))


def test_the_page_is_whole_and_needs_nothing_else_whatever_the_models_wrote():
    table = Table("t", HOSTILE, (Column(HOSTILE, "text"),), ((HOSTILE,),), HOSTILE)
    section = Section(HOSTILE, (table,), (Picture(b"png", HOSTILE),), examples(hostile_family()))
    reader = read(page(HOSTILE, [HOSTILE], [HOSTILE], [section]))
    names = {name for name, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form"}
    sources = [attributes["src"] for name, attributes in reader.tags if name == "img"]
    assert sources == ["data:image/png;base64,cG5n"]
    assert not any(key.startswith("on") for _, attributes in reader.tags for key in attributes)
    assert reader.text.count(HOSTILE) > 8  # shown as text
    [policy] = [one["content"] for name, one in reader.tags if name == "meta" and "http-equiv" in one]
    assert policy == POLICY and "default-src 'none'" in policy


def test_the_page_says_how_its_numbers_are_made():
    text = read(page("Title", [], [], [])).text
    assert "2000 resamples" in text and "not corrected for the number of comparisons" in " ".join(text.split())


def test_examples_show_a_gain_a_loss_and_no_change_not_gains_only():
    def make(right: set[int], length: int) -> Member:
        made = [record(f"q{index:02d}", length=length + index, correct=index in right) for index in range(20)]
        return Member("m", "base", made, None)

    pairs = picked(make({1, 3}, 10), make({0, 2, 3}, 50))
    assert [before.id for before, _ in pairs] == ["q00", "q01", "q03"]


def test_long_responses_are_cut_in_the_middle_and_say_so():
    text = read(examples(hostile_family())).text
    assert "characters left out" in text and len(text) < 5000


def test_there_are_no_examples_without_an_edit():
    assert examples(Family("gsm8k", (Member("base", "base", evaluation(0, 30, 1), 500),))) == ""
