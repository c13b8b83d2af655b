"""Text that breaks tokenizers, and the `tokenizers` library as the oracle."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

# Written out again: the oracle shares nothing with the code under test.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"] + [f"<|reserved_{i}|>" for i in range(12)]
MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
OLD = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SINGLE = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
REGEXES = {"qwen2": QWEN2, "cl100k": MODERN, "gpt2": OLD, "smollm": SINGLE}
PROSE = "The cat sat on the mat; the mat was sat on by the cat. It's what cats' lives're like, they'll say!\n\n  Yes.\n"

HARD = {
    "empty": "",
    "nul": "\x00",
    "spaces": "a   b    c     \t  d" + " " * 70,
    "leading": "  lead and trail  ",
    "newlines": "a\n\n\nb \n c\t\n\t\n  d\r\n\r\ne\rf \r g\n",
    "blanks": "\u00a0x\u2003y\u3000z\u0085w\u1680\u2028\u2029\u205f.\x1c\x1d\x1e\x1f \x1cx",
    "contractions": "it's IT'S we'll WE'LL they've I'm I'd you're 'tis ''s 's's x'\u017f '\u017fx don't'll 'L'l 'rE",
    "numbers": "1 12 123 3.14159 1,000 ٣٤٥ ½ Ⅷ ๑๒ 𝟘𝟙 10٪",
    "accents": "Café Cafe\u0301 naïve Ångström ﬁ ß ẞ İ ı Ǆ \u0130s",
    "emoji": "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪🇫🇷 ❤️ 1️⃣ x👍y 👍👍👍",
    "arabic": "السَّلامُ عَلَيْكُمْ ورحمة الله، كيف حالك؟",
    "indic": "नमस्ते दुनिया क्षत्रिय தமிழ் ಕನ್ನಡ",
    "thai": "สวัสดีชาวโลก เมื่อวานนี้ฝนตก",
    "cjk": "日本語のテキスト、中文文本。한국어 텍스트\u3000𠀀𪚥",
    "astral": "𝕳𝖊𝖑𝖑𝖔 𝟙𝟚 𓀀𓀁 𐍈'𐍈 👍s a𝟙b \U0010ffff\U000e0001",
    "code": "def f(x):\n    return x[0] != '\\n'  # it's\n\n\nclass A:\n\tpass\n<p>a&amp;b</p>",
    "specials": "a<|endoftext|>b <|im_start|>user<|im_end|><|pad|><|reserved_0|> <|endoftext",
    "marks": "\u0301\u0301a\u0301 \ufeffbom \ufffd \ufffe \u200d\u200b\u202eabc",
    "runs": "aaaaaaa" * 40 + "!!!!!!!" * 40 + "\n" * 99 + "ab" * 200,
}


@pytest.fixture(params=["plain", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tests that use this are about both ways of doing it."""
    monkeypatch.setenv("ALM_KERNELS", {"plain": "never", "compiled": "always"}[request.param])
    return str(request.param)


@pytest.fixture(scope="session")
def all_hard() -> list[str]:
    return list(HARD.values())


@pytest.fixture(scope="session")
def every_scalar() -> list[str]:
    """Scalar values in order, and many between a letter, a digit, blanks, an apostrophe and itself.

    Every one of the planes 0 to 3 and of the start of plane 14. Of the others, where nothing is assigned, every 61st:
    `test_unicode_table.py` compares the class of each.
    """
    points = [*range(0xD800), *range(0xE000, 0x33480), *range(0x33480, 0x110000, 61), *range(0xE0000, 0xE0200)]
    scalars = [*map(chr, points), chr(0x10FFFF)]
    blocks = [scalars[start : start + 8000] for start in range(0, len(scalars), 8000)]
    texts = ["".join(block) for block in blocks]
    # The scripts of planes 0 and 1, without the ideographs between them.
    texts += ["".join(f"a{c}1{c} {c}{c}'{c}\n{c}" for c in block) for block in (*blocks[:2], *blocks[7:10])]
    return texts


@pytest.fixture(scope="session")
def soup() -> list[str]:
    """Random mixtures of what the split treats differently, from a fixed seed."""
    draw = random.Random(20)
    marks = ["  ", "   ", "é", "\u017f", "٣", "👍", "𝟙", "𐍈", "\u3000", "\u0301"]
    alphabet = [*"ab1 \n\r\t'.sStTlLrRvVeEdDmM", *marks]
    return ["".join(draw.choices(alphabet, k=draw.randrange(1, 60))) for _ in range(3000)]


def _split(pattern: str, *, of_bytes: bool) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "smollm")
    if pattern == "smollm":
        rest = byte_level if of_bytes else pre_tokenizers.Split(Regex(OLD), "isolated")
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), rest])
    split = pre_tokenizers.Split(Regex(REGEXES[pattern]), "isolated")
    return pre_tokenizers.Sequence([split, byte_level]) if of_bytes else split


def _library(pattern: str | None) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if pattern:
        tokenizer.pre_tokenizer = _split(pattern, of_bytes=True)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


Train = Callable[..., tokenizers.Tokenizer]


@pytest.fixture(scope="session")
def library_train() -> Train:
    """`train(texts, vocab_size, pattern=, whole=False)` by the library; `whole` makes each text one word."""

    def train(
        texts: Iterable[str], vocab_size: int, *, pattern: str = "qwen2", whole: bool = False
    ) -> tokenizers.Tokenizer:
        tokenizer = _library(None if whole else pattern)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=0,
            special_tokens=SPECIALS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer

    return train


@pytest.fixture(scope="session")
def regexes() -> dict[str, str]:
    return REGEXES


@pytest.fixture(scope="session", params=REGEXES)
def pattern(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def library_words(pattern: str) -> Callable[[str], list[str]]:
    """The words the library splits a text into."""
    split = _split(pattern, of_bytes=False)
    return lambda text: [word for word, _ in split.pre_tokenize_str(text)]


@pytest.fixture(scope="session")
def prose() -> list[str]:
    return [PROSE] * 3 + list(HARD.values())
