from __future__ import annotations

import random
import sys
import unicodedata

from cases import for_each

from alm.corpus.document import utf8_bytes
from alm.corpus.normalize import normalize


@for_each(
    "text, clean, changes",
    [
        ("plain\n  indented\n\n\ttab\n", "plain\n  indented\n\n\ttab\n", {}),
        ("a\r\nb\rc\n", "a\nb\nc\n", {"line_ends": -1}),
        ("cafe\u0301", "café", {"nfc": -1}),
        ("a\x00b\x7f\x80c", "abc", {"controls": -4}),
        ("page\x0cnext\x0bline\x85end", "page\nnext\nline\nend", {"line_ends": -1}),
        # Separators of files, groups and records end a line, as in `str.splitlines`; that of units is a kind of tab.
        ("one\x1ctwo\x1dthree\x1efour\x1ffive", "one\ntwo\nthree\nfour\tfive", {"line_ends": 0, "controls": 0}),
        ("\ufeffstart", "start", {"byte_order_mark": -3}),
        ("half \ud83d", "half \ufffd", {"surrogates": 0}),
        # Compatibility characters are what they are: NFKC would write 102, (TM) and fi.
        ("10² ™ ﬁ ½ Ａ", "10² ™ ﬁ ½ Ａ", {}),
        # Joiners hold emoji and Persian together; other white space and separators stay.
        ("👩\u200d🚀 \u200c\u2028\xa0", "👩\u200d🚀 \u200c\u2028\xa0", {}),
        ("e\x01\u0301", "é", {"controls": -1, "nfc": -1}),
    ],
)
def test_each_step_does_what_it_says(text: str, clean: str, changes: dict[str, int]) -> None:
    found = normalize(text)
    assert (found.text, found.changes) == (clean, changes)


def test_words_that_white_space_separates_stay_apart() -> None:
    blanks = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    joined = [blank for blank in blanks if normalize(f"one{blank}two").text.split() != ["one", "two"]]
    assert joined == []


def hard_text(draw: random.Random) -> str:
    special = "\r\n\t\x00\x1f\x7f\x85\ufeff\ud800\udfff\u0301e\u1100\u1161\u212b "
    return "".join(
        draw.choice(special) if draw.random() < 0.5 else chr(draw.randrange(sys.maxunicode)) for _ in range(40)
    )


def test_laws_hold_for_any_text() -> None:
    draw = random.Random(5)
    for _ in range(2000):
        text = hard_text(draw)
        found = normalize(text)
        data = found.text.encode("utf-8")  # always possible
        assert len(data) == utf8_bytes(text) + sum(found.changes.values())
        assert normalize(found.text).text == found.text
        assert unicodedata.is_normalized("NFC", found.text)
        assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in found.text)
