"""Unigram training against sums over all segmentations, laws of expectation maximization, and the library's trainer."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from cases import for_each
from tokenizers import Regex, models, pre_tokenizers, trainers

from alm.corpus.sources.tales.tell import tell
from alm.errors import ConfigError
from alm.events import Event, Noted, Progressed
from alm.tokenizers import special
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import _unigram_fit as fitting
from alm.tokenizers.models import _unigram_seeds as seeding
from alm.tokenizers.models import unigram
from alm.tokenizers.pretokenize import count_words
from alm.tokenizers.words import Words

TINY = {"abab": 3, "bab": 2, "aab": 1, "abcabc": 7, "cabba": 4, "b": 9}
FIRST_PIECE = 273
SMALLEST = FIRST_PIECE + 95
NO_LIMIT = 1 << 20
EULER = 0.57721566490153286
ROUNDING = 1e-9
"""Relative; both sides add up at most thousands of float64s."""


def text_of(words: Mapping[str, int], alphabet: str | None = None, most: int = NO_LIMIT) -> seeding.Text:
    alphabet = "".join(sorted(set("".join(words)))) if alphabet is None else alphabet
    return seeding.Text.of(Words.of(words), alphabet, most=most)


def fitting_of(words: Mapping[str, int], longest: int = 4) -> fitting.Fitting:
    return fitting.Fitting(seeding.seed(text_of(words), most=NO_LIMIT, longest=longest), longest)


def trained(words: Mapping[str, int], vocab_size: int, **config: object) -> unigram.Model:
    return unigram.train(Words.of(words), config=unigram.Config.model_validate(config), vocab_size=vocab_size)


def pieces_of(model: unigram.Model) -> list[str]:
    return list(model.names[FIRST_PIECE:])


def spellings(word: str, pieces: Mapping[str, float]) -> Iterator[list[str]]:
    """Every way to spell `word` in `pieces`."""
    if not word:
        yield []
    for end in range(1, len(word) + 1):
        if word[:end] in pieces:
            for rest in spellings(word[end:], pieces):
                yield [word[:end], *rest]


def repeats(words: Mapping[str, int], longest: int) -> dict[str, int]:
    """Substrings with other neighbours on both sides, and lone words that repeat; with their counts."""
    places = defaultdict(list)
    for word, count in words.items():
        for start, end in itertools.combinations(range(len(word) + 1), 2):
            if end - start <= longest:
                before = word[start - 1] if start else object()  # each beginning and each end is another
                behind = word[end] if end < len(word) and end - start < longest else object()
                places[word[start:end]].append((before, behind, count))
    found = {}
    for substring, where in places.items():
        count = sum(count for *_, count in where)
        befores, behinds, _ = (set(column) for column in zip(*where, strict=True))
        is_lone_word = len(where) == 1 and words.get(substring, 0) > 1
        if len(substring) > 1 and (is_lone_word or (len(befores) > 1 and len(behinds) > 1)):
            found[substring] = count
    return found


def random_words(seed: int) -> dict[str, int]:
    draw = random.Random(seed)
    return {"".join(draw.choices("abcé👍", k=draw.randrange(1, 12))): draw.randrange(1, 9) for _ in range(30)}


@for_each("longest", [1, 2, 3, 8, 31])
@for_each("words", [TINY, {"aaaaaaaa": 1}, *map(random_words, range(6))])
def test_seeds_are_the_substrings_that_no_longer_one_stands_for(words: dict[str, int], longest: int) -> None:
    pieces = seeding.seed(text_of(words), most=NO_LIMIT, longest=longest)
    found = dict(zip(pieces.spelled(), pieces.frequencies.tolist(), strict=True))
    characters = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    assert found == {**characters, **repeats(words, longest)}


def test_the_best_seeds_are_those_that_cover_the_most_text() -> None:
    pieces = seeding.seed(text_of(TINY), most=3, longest=8)
    covered = {piece: count * len(piece) for piece, count in repeats(TINY, 8).items()}
    assert {*pieces.spelled()} == {*"abc", *sorted(covered, key=covered.__getitem__)[-3:]}


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_all_occurrences_of_all_pieces(seed: int) -> None:
    text = text_of(random_words(seed))
    pieces = seeding.seed(text, most=20, longest=5)
    spelled = pieces.spelled()
    flat = "".join(" " if code == 0 else text.alphabet[code - 1] for code in text.codes.tolist())
    for place in np.flatnonzero(text.codes).tolist():
        listed = pieces.matches[pieces.begins[place] : pieces.begins[place + 1]].tolist()
        assert [match & 31 for match in listed] == sorted(match & 31 for match in listed)
        assert sorted(spelled[match >> 5] for match in listed) == sorted(
            piece for piece in spelled if flat.startswith(piece, place)
        )


@for_each("words", [TINY, *map(random_words, range(4))])
def test_expected_counts_are_sums_over_all_spellings(words: dict[str, int]) -> None:
    state = fitting_of(words)
    draw = np.random.default_rng(7)
    state.scores = draw.uniform(-9, -0.1, len(state.scores))
    scores = dict(zip(state.pieces.spelled(), state.scores.tolist(), strict=True))
    expected: Counter[str] = Counter()
    likelihood = 0.0
    for word, count in words.items():
        ways = [(way, math.exp(sum(scores[piece] for piece in way))) for way in spellings(word, scores)]
        total = math.fsum(probability for _, probability in ways)
        likelihood += count * math.log(total)
        for way, probability in ways:
            for piece in way:
                expected[piece] += count * probability / total
    assert state.expect() == pytest.approx(likelihood, rel=ROUNDING)
    assert state.frequencies.tolist() == pytest.approx([expected[piece] for piece in scores], rel=ROUNDING)


def test_words_of_ten_thousand_characters_neither_overflow_nor_underflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "LONGEST_RUN", 20_000)
    monkeypatch.setattr(seeding, "_MOST_OF_WORD", NO_LIMIT)
    draw = random.Random(4)
    words = {"".join(draw.choices("abc", k=10_000)): 3, "ab" * 30: 2}
    state = fitting_of(words)
    state.scores = np.full(len(state.scores), -12.0)  # so a long word has a probability of about 10 ** -20,000
    pieces = set(state.pieces.spelled())
    likelihood, expected_length = 0.0, 0
    for word, count in words.items():
        sums = [0.0, *[-math.inf] * len(word)]
        for end in range(1, len(word) + 1):
            ways = [sums[start] - 12.0 for start in range(max(0, end - 4), end) if word[start:end] in pieces]
            top = max(ways)
            sums[end] = top + math.log(math.fsum(math.exp(way - top) for way in ways))
        likelihood += count * sums[-1]
        expected_length += count * len(word)
    assert state.expect() == pytest.approx(likelihood, rel=ROUNDING)
    assert float(state.frequencies @ state.pieces.lengths) == pytest.approx(expected_length, rel=ROUNDING)


def test_a_rare_character_between_common_pieces_is_scaled_too() -> None:
    state = fitting_of({"ab" * 40 + "c" + "ab" * 40: 1})
    state.scores = np.where(np.array(state.pieces.spelled()) == "c", -200.0, -3.0)
    state.expect()
    frequencies = dict(zip(state.pieces.spelled(), state.frequencies.tolist(), strict=True))
    assert frequencies["c"] == pytest.approx(1, rel=ROUNDING)
    assert float(state.frequencies @ state.pieces.lengths) == pytest.approx(161, rel=ROUNDING)


@pytest.mark.parametrize("seed", range(4))
def test_a_plain_step_never_lowers_the_likelihood(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_LEAST_EXPECTED", 1e-30)  # without a floor it is a law
    state = fitting_of(random_words(seed))
    likelihoods = [state.step(is_last=True) for _ in range(12)]
    assert likelihoods[-1] > likelihoods[0]
    assert all(later >= earlier - ROUNDING * abs(earlier) for earlier, later in itertools.pairwise(likelihoods))
    assert math.fsum(np.exp(state.scores)) == pytest.approx(1, rel=ROUNDING)


def test_an_ordinary_step_drops_what_is_not_expected_and_takes_from_the_rare() -> None:
    state = fitting_of({"ab": 1000, "abc": 2, "bc": 1})
    before = state.pieces.spelled()
    state.expect()
    expected = dict(zip(before, state.frequencies.tolist(), strict=True))
    state = fitting_of({"ab": 1000, "abc": 2, "bc": 1})
    state.step()
    kept = [piece for piece in before if len(piece) == 1 or expected[piece] >= 1]
    assert state.pieces.spelled() == kept
    counts = np.array([max(expected[piece], 1) for piece in kept])
    shares = np.exp(state.scores)
    # exp(digamma(x)) is x - 1/2 and something less than 1 / 20x.
    assert shares / shares.max() == pytest.approx((counts - 0.5) / (counts.max() - 0.5), abs=3e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_a_piece_is_that_of_spelling_it_in_others(seed: int) -> None:
    words = random_words(seed)
    state = fitting_of(words)
    for _ in range(2):
        state.step()
    spelled = state.pieces.spelled()
    scores = dict(zip(spelled, state.scores.tolist(), strict=True))
    counts = dict(zip(spelled, state.frequencies.tolist(), strict=True))
    total = sum(counts.values())
    lost = {}
    for piece in spelled:
        if len(piece) > 1:
            others = [way for way in spellings(piece, scores) if way != [piece]]
            best = max(others, key=lambda way: sum(scores[part] for part in way))
            if sum(scores[part] for part in best) < scores[piece]:
                new_total = math.log(total + counts[piece] * (len(best) - 1))
                instead = sum(math.log(counts[part] + counts[piece]) - new_total for part in best)
                lost[piece] = counts[piece] * (math.log(counts[piece]) - math.log(total) - instead)
    computed = dict(zip(spelled, state.losses().tolist(), strict=True))
    assert {piece: computed[piece] for piece in lost} == pytest.approx(lost, rel=ROUNDING)
    alphabet = [piece for piece in spelled if len(piece) == 1]
    for size in (0, 2, len(spelled)):
        state = fitting_of(words)
        for _ in range(2):
            state.step()
        state.prune(len(alphabet) + size)
        best_first = sorted((piece for piece in lost if lost[piece] >= 0), key=lambda piece: -lost[piece])
        assert {*state.pieces.spelled()} == {*alphabet, *best_first[:size]}


def test_digamma() -> None:
    known = {
        1.0: -EULER,
        2.0: 1 - EULER,
        5.0: 1 + 1 / 2 + 1 / 3 + 1 / 4 - EULER,
        0.5: -EULER - 2 * math.log(2),
        0.25: -EULER - math.pi / 2 - 3 * math.log(2),
        1e9: math.log(1e9) - 0.5e-9,
    }
    assert fitting.digamma(np.array(list(known))).tolist() == pytest.approx(list(known.values()), rel=1e-14)
    many = np.linspace(0.01, 30, 999)
    assert fitting.digamma(many + 1) - fitting.digamma(many) == pytest.approx(1 / many, rel=1e-12)


def test_a_text_is_its_words_in_runs_of_known_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "LONGEST_RUN", 3)
    text = text_of({"abc": 5, "xaé": 4, "abcdabcd": 2, "x": 1}, "abcdé")
    runs = [
        ("".join(text.alphabet[code - 1] for code in text.codes[start : start + length]), count)
        for start, length, count in zip(text.starts, text.lengths, text.counts.tolist(), strict=True)
    ]
    assert runs == [("abc", 5), ("aé", 4), ("abc", 2), ("dab", 2), ("cd", 2)]
    assert [text.codes[start + length] for start, length in zip(text.starts, text.lengths, strict=True)] == [0] * 5
    assert text.left[text.starts].tolist() == text.lengths.tolist()


def test_the_commonest_words_are_trained_on_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of({"éé": 3, "aaa": 2, "bbbb": 1}, most=8)
    assert (len(text.starts), text.left_out) == (2, 1)
    monkeypatch.setattr(seeding, "MOST_CHARACTERS", 8)
    events: list[Event] = []
    unigram.train(
        Words.of({"éé": 3, "aaa": 2, "bbbb": 1}), config=unigram.Config(), vocab_size=500, on_event=events.append
    )
    assert [event.message for event in events if isinstance(event, Noted) and "fitting" in event.message] == [
        "fitting the 2 most common of 3 distinct words"
    ]


def test_of_a_word_without_end_only_the_beginning_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "_MOST_OF_WORD", 7)
    text = text_of({"a👍b👍c": 3, "abc": 2, "aaaaaaaaaa": 1})
    spelled = "".join(" " if code == 0 else text.alphabet[code - 1] for code in text.codes.tolist())
    assert spelled.split() == ["a👍b", "abc", "aaaaaaa"]
    assert text.left_out == 0


def test_pieces_are_numbered_from_the_likeliest_and_equal_ones_by_their_bytes() -> None:
    model = trained(count_words([tell(seed=1, index=index) for index in range(20)], "qwen2"), 700)
    keys = [(-score, token) for score, token in zip(model.scores, model.tokens, strict=True)][FIRST_PIECE:]
    assert keys == sorted(keys)
    assert len(keys) == 700 - FIRST_PIECE
    assert list(model.names[:FIRST_PIECE]) == [*special.SPECIALS, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    assert math.fsum(math.exp(score) for score, _ in ((-key[0], key) for key in keys)) == pytest.approx(1, abs=1e-5)
    assert all(round(score, 8) == score for score in model.scores)


def test_every_printable_ascii_character_and_the_common_others_are_pieces() -> None:
    pieces = pieces_of(trained({"é" * 50: 40, "\n": 999, "中": 1, "\ud800": 500}, 600))
    assert {chr(point) for point in range(32, 127)} <= {*pieces}
    assert {"é", "\n"} <= {*pieces}
    assert not {"中", "\ud800"} & {*pieces}
    assert "中" in pieces_of(trained({"é" * 50: 40, "\n": 999, "中": 1}, 600, character_coverage=1.0))


def test_a_vocabulary_too_small_for_the_alphabet_keeps_the_commonest_and_leaves_room() -> None:
    words = {"the": 5000} | {chr(0x4E00 + index): 1000 - index for index in range(900)}
    pieces = pieces_of(trained(words, 573))
    # Three quarters of the 300 are for characters, of which 95 are always there.
    assert {piece for piece in pieces if piece >= "\u4e00"} == {chr(0x4E00 + index) for index in range(127)}
    assert "the" in pieces
    assert len(pieces_of(trained(words, SMALLEST))) == 95


def test_pieces_are_no_longer_than_asked() -> None:
    words = {"abcdefghij": 50, "abcdefghijk": 50}
    assert max(map(len, pieces_of(trained(words, 400, max_piece_length=5)))) == 5
    assert "abcdefghijk" in pieces_of(trained(words, 400))


@pytest.mark.parametrize("vocab_size", [0, SMALLEST - 1, (1 << 20) + 1])
def test_an_impossible_vocabulary_size_is_refused(vocab_size: int) -> None:
    with pytest.raises(ConfigError, match="368 to 1,048,576 tokens") as caught:
        trained({"a": 1}, vocab_size)
    assert caught.value.hint == "use `--vocab-size 8192`, or any size from 368 up"


@for_each("words", [{}, {"a": 1}, {"a": 10**12}, {"中": 1}, {"\ud800": 3}, {"ab": 1}, {"\x00": 2}])
def test_a_text_that_cannot_fill_the_vocabulary_ends_early(words: dict[str, int]) -> None:
    model = trained(words, 1000)
    new = {*pieces_of(model)} - {chr(point) for point in range(32, 127)}
    assert new <= {*words, *"".join(words)}
    assert all(map(math.isfinite, model.scores))
    tokenizer = Tokenizer.of(model)
    for word in words:
        assert tokenizer.decode(tokenizer.encode(word * 3)) == word * 3


@for_each("word", ["a" * 1_000_000, " " * 200_000, "ab" * 300_000, "acgt" * 100_000, "👍" * 100_000])
def test_long_words_are_not_slow(word: str) -> None:
    model = trained({word: 1, "a": 7}, 500)
    assert word[:16] in pieces_of(model)


def test_the_same_words_give_the_same_file_and_progress_is_told(tmp_path: Path) -> None:
    counts = count_words([tell(seed=2, index=index) for index in range(60)], "qwen2")
    events: list[Event] = []
    for name, listed in (("a", list(counts.items())), ("b", list(counts.items())[::-1])):
        model = unigram.train(Words.of(dict(listed)), config=unigram.Config(), vocab_size=700, on_event=events.append)
        Tokenizer.of(model).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    progress = [event for event in events if isinstance(event, Progressed)]
    assert len(progress) > 4
    assert all(0 <= event.done <= (event.total or 0) for event in progress)


def test_training_can_be_stopped_by_its_listener() -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unigram.train(Words.of(TINY), config=unigram.Config(), vocab_size=500, on_event=stop)


def log_probability(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> float:
    """Of the best spelling, for each byte."""
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]
    total = sum(vocab[id_][1] for text in texts for id_ in tokenizer.encode(text).ids)
    return total / sum(len(text.encode()) for text in texts)


def test_new_text_is_as_likely_as_under_the_library(regexes: dict[str, str], tmp_path: Path) -> None:
    tales = [tell(seed=3, index=index) for index in range(500)]
    held_out, vocab_size = [tell(seed=4, index=index) for index in range(40)], 1000
    theirs = tokenizers.Tokenizer(models.Unigram())
    theirs.pre_tokenizer = pre_tokenizers.Split(Regex(regexes["qwen2"]), "isolated")
    # Without specials and bytes of its own it has as many real pieces as we have.
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - FIRST_PIECE + 1, show_progress=False, special_tokens=["<unk>"], unk_token="<unk>"
    )
    theirs.train_from_iterator(tales, trainer)
    Tokenizer.of(trained(count_words(tales, "qwen2"), vocab_size)).save(tmp_path / "tokenizer.json")
    ours = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert log_probability(ours, held_out) > log_probability(theirs, held_out)
