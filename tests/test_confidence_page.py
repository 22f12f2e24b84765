"""The coloured page: its colours and numbers, and that a model's text stays text."""

from dataclasses import replace
from html.parser import HTMLParser

from synthetic import marks_of, record
from test_calibration import chain

from thinksteer.confidence_page import Told, page, token_texts
from thinksteer.thinking import Reader

EVIL = "</script><img src=x onerror=alert(1)>\"'&<style>*{}</style>"


class Read(HTMLParser):
    """Tags, and the spans of the chains: (class, title, text)."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.spans, self.plain, self._in = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._in.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._in and self._in.pop()[0] != tag:
            pass

    def handle_data(self, text):
        tag, attrs = self._in[-1] if self._in else ("", {})
        if tag == "span" and "title" in attrs:
            self.spans.append((attrs["class"], attrs["title"], text))
        elif tag == "pre":
            self.plain.append(text)


ONE = replace(
    chain("q", [False, False, True], at=[0, 2, 4], confidence=[0.9, 0.6, 0.97], odds=[-2.0, 0.5, 3.5]), thinking_end=4
)


def test_tokens_have_the_colour_and_numbers_of_the_place_behind_them():
    found = Read(page("t", [], [Told(ONE, "How many?", ("A", "b", " c", "d", "e"))]))
    assert [(css, text) for css, _, text in found.spans] == [("p4", "A"), ("p4", "b"), ("p10", " c"), ("p10 end", "d")]
    assert found.plain == ["e"]
    assert found.spans[2][1] == "token 3; after 4: r 0.970, log-odds +3.50, mass 1.000, likeliest r"


def test_whatever_a_model_writes_stays_text():
    evil = replace(ONE, id=EVIL, choice=EVIL, likeliest=(EVIL,) * 3)
    text = page(EVIL, [EVIL], [Told(evil, EVIL, (EVIL, "x", EVIL, "y", EVIL))])
    found = Read(text)
    assert not found.tags & {"script", "img", "iframe", "link", "svg"}
    assert [span for _, _, span in found.spans] == [EVIL, "x", EVIL, "y"] and found.plain == [EVIL]
    assert text.count("<style>") == 1 and f"likeliest {EVIL}" in found.spans[0][1]


def test_the_page_asks_nobody_for_anything_and_knows_the_dark():
    text = page("t", [], [Told(ONE, "q", ("a",) * 5)])
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert "http:" not in text and "https:" not in text and "url(" not in text and "src=" not in text


def test_flagged_chains_say_so():
    flagged = replace(ONE, mass=(0.1,) * 3, degenerate=True)
    text = page("t", [], [Told(flagged, "q", ("a",) * 5)])
    assert "; degenerate; seldom one of the choices" in text
    assert "degenerate" not in page("t", [], [Told(ONE, "q", ("a",) * 5)])


def test_token_texts_join_to_the_response_whatever_tokens_hold():
    parts = {1: b"a", 2: "é".encode()[:1], 3: "é".encode()[1:], 4: b" b"}

    def decode(ids):
        return b"".join(parts[one] for one in ids).decode(errors="replace")

    reader = Reader(None, decode, None, marks_of((), "<think>", "</think>"))
    one = replace(record("q", response="aé b"), token_ids=(1, 2, 3, 4))
    assert token_texts(one, reader) == ("a", "", "é", " b")
