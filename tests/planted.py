"""Plants mistakes in a copy of the code, one after another, and shows which of them the tests notice.

`python tests/planted.py` tries all of them in minutes; `--only "*lock*"` some; `--alm DIR` those of another checkout.

A mistake is a text of one module and what is written instead. It is found by its text, so that it moves with the code:
a text that is not there exactly once is an error. Each names the test files that should notice it.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("alm", "configs", "docs", "tests", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SECONDS = 900
NOTHING_FAILED, TESTS_FAILED = 0, 1  # exit codes of pytest


@dataclass(frozen=True)
class Mistake:
    """`wrong` in place of `right`, and the test files that should notice."""

    name: str
    right: str
    wrong: str
    tests: tuple[str, ...]


MISTAKES = (
    # Training
    Mistake("loss scale: gradients stay scaled by two", "1.0 / self.scale)", "2.0 / self.scale)", ("test_scaling",)),
    Mistake(
        "mask: padding is learned",
        ".masked_fill_(targets[part] < 0, 0.0)[:, None].to(",
        "[:, None].to(",
        ("test_loss",),
    ),
    Mistake("lr: the warm-up begins at zero", "return (step + 1) / steps", "return step / steps", ("test_schedules",)),
    Mistake(
        "shuffle: each epoch in the same order", "keys = _keys(seed, epoch)", "keys = _keys(seed, 0)", ("test_mixture",)
    ),
    Mistake(
        "resume: a step is left out",
        "    state.step = checkpoint.step\n",
        "    state.step = checkpoint.step + 1\n",
        ("test_state", "test_pretrain"),
    ),
    Mistake(
        "budget: pauses are forgotten", "(seconds - costs.start - pauses)", "(seconds - costs.start)", ("test_budget",)
    ),
    Mistake(
        "verdict: noise is divergence",
        "is_worse and risen_to - was > 2 * _standard_error(before, now)",
        "is_worse",
        ("test_verdict",),
    ),
    Mistake(
        "budget: the tenth pass teaches as much as the first",
        "effective_tokens(unique, tokens / unique) if text_bytes else tokens",
        "tokens",
        ("test_suggest",),
    ),
    Mistake(
        "regularisation: between two measurements by passes, not by their logarithm",
        "(position - math.log(low)) / math.log(high / low)",
        "(max(passes, low) - low) / (high - low)",
        ("test_repeated_text",),
    ),
    # Model
    Mistake("rope: other frequencies", "theta ** -(pairs / width)", "theta ** -(pairs / (width + 2))", ("test_rope",)),
    Mistake(
        "document mask: earlier documents are seen",
        "documents[:, None, -T:, None] ==",
        "documents[:, None, -T:, None] >=",
        ("test_attention",),
    ),
    Mistake(
        "cache: each token is written over the one before",
        "        self.length = end\n",
        "        self.length = max(start, end - 1)\n",
        ("test_kv_cache",),
    ),
    # Checkpoints and files
    Mistake(
        "hash: any file is taken for the promised one",
        "if digest is not None and each.sha256 == digest:",
        "if digest is not None:",
        ("test_checkpoint",),
    ),
    Mistake(
        "retention: the wrong steps are permanent",
        "step % self.every == 0",
        "step % self.every == 1",
        ("test_checkpoint",),
    ),
    Mistake(
        "publish: the promise comes before the files",
        "    _move(folder, journal.moves)\n    if last is not None and last_source is not None and not is_promised:\n"
        "        last_source.replace(last)\n        sync_folder(folder)\n    _move(folder, journal.follows)\n",
        "    if last is not None and last_source is not None and not is_promised:\n"
        "        last_source.replace(last)\n        sync_folder(folder)\n    _move(folder, journal.moves)\n"
        "    _move(folder, journal.follows)\n",
        ("test_files", "test_crash"),
    ),
    Mistake(
        "journal: a file that changed since is replaced",
        "if now not in (None, journal.there.get(target_name)):",
        "if False:",
        ("test_files",),
    ),
    Mistake(
        "lock: another process of the same number is its owner",
        "is_running(self.pid) and (self.started is None or _started(self.pid) in (None, self.started))",
        "is_running(self.pid)",
        ("test_lock",),
    ),
    # Corpus and packing
    Mistake(
        "split: near duplicates are on both sides",
        "split_of(cluster, of_hashes) == VALIDATION",
        "split_of(f'{cluster} {number}', of_hashes) == VALIDATION",
        ("test_decide", "test_settle", "test_units"),
    ),
    Mistake(
        "split: a small text gives no more than others",
        "max(validation_fraction, min(_MOST_RAISED, _LEAST_HELD_OUT_BYTES / total))",
        "validation_fraction",
        ("test_split",),
    ),
    Mistake(
        "split: a book counts no more than a note",
        "total * total * validation_fraction < _FEWEST_HELD_OUT * squares",
        "total * validation_fraction < _FEWEST_HELD_OUT",
        ("test_split",),
    ),
    Mistake(
        "duplicates: only the last band counts",
        "near[compared] |= earlier < compared",
        "near[compared] = earlier < compared",
        ("test_minhash", "test_near"),
    ),
    Mistake(
        "records: one mark of a text is escaped",
        '_ESCAPABLE.sub(r"\\\\\\1", text) if',
        '_ESCAPABLE.sub(r"\\\\\\1", text, count=1) if',
        ("test_records",),
    ),
    Mistake(
        "packing: the last target is lost",
        "left = rows * seq_len + 1 if rows",
        "left = rows * seq_len if rows",
        ("test_pack",),
    ),
    # Tokenizers
    Mistake(
        "bpe: equal merges are joined from the right",
        "at = ranks.index(best)",
        "at = len(ranks) - 1 - ranks[::-1].index(best)",
        ("test_bpe",),
    ),
    Mistake(
        "unigram: ties go to the later piece",
        "if score > best[end]:\n                        best[end], parts[end] =",
        "if score >= best[end]:\n                        best[end], parts[end] =",
        ("test_unigram",),
    ),
    Mistake(
        "byte fallback: bytes of a character are turned round",
        "for byte in word[start:end][::-1]]",
        "for byte in word[start:end]]",
        ("test_unigram",),
    ),
    Mistake(
        "import: a word that is a token is merged all the same",
        '"llama-bpe": _Split("cl100k", ignore_merges=True)',
        '"llama-bpe": _Split("cl100k")',
        ("test_gguf_tokenizer",),
    ),
    Mistake(
        "import: merges of a file come worst first",
        "found.sort(key=lambda merge: merge[:3], reverse=True)",
        "found.sort(key=lambda merge: merge[:3])",
        ("test_gguf_tokenizer",),
    ),
    Mistake(
        "import: no token begins a text unless the file says so",
        "if not (adds if is_added is None else is_added) or",
        "if not is_added or",
        ("test_gguf_tokenizer",),
    ),
    Mistake(
        "chat: text of a message becomes control tokens",
        "if not part.is_control:",
        "if False:",
        ("test_chat_format",),
    ),
    Mistake(
        "chat: a line break behind a tag of the template stays",
        'raw = raw.removeprefix("\\n")',
        "pass",
        ("test_chat_format",),
    ),
    # Generation and export
    Mistake("top-p: the wrong end is cut", ".cumsum(-1) <= 1 - share", ".cumsum(-1) <= share", ("test_sampling",)),
    Mistake(
        "repetition: negative scores rise",
        "torch.where(scores < 0, scores * penalty, scores / penalty)",
        "scores / penalty",
        ("test_sampling",),
    ),
    Mistake(
        "stop: the shortest beginning is held back",
        "range(min(most, len(text)), 0, -1)",
        "range(1, min(most, len(text)) + 1)",
        ("test_stopping",),
    ),
    Mistake(
        "gguf: keys are permuted like queries",
        '"k_proj": model.n_kv_heads}',
        '"k_proj": model.n_heads}',
        ("test_gguf",),
    ),
    # Boundaries
    Mistake("hub: one attempt too many", "if attempt >= allowed or", "if attempt > allowed or", ("test_hub",)),
    Mistake("numbers: 65 bits are read", "-(1 << 63), (1 << 64) - 1", "-(1 << 63), (1 << 65) - 1", ("test_parse",)),
    Mistake(
        "screen: a line keeps its line breaks",
        "return _IN_LINE.sub(_escape, given)",
        "return _IN_TEXT.sub(_escape, given)",
        ("test_shown",),
    ),
    Mistake(
        "doctor: decoding is compared with itself",
        "distance(pieces, whole)",
        "distance(pieces, pieces)",
        ("test_laws",),
    ),
)


def place_of(mistake: Mistake, package: Path) -> Path:
    """Return the one module that holds the right text; exit if there is none or more."""
    found = [path for path in sorted(package.rglob("*.py")) if mistake.right in path.read_text("utf-8")]
    times = sum(path.read_text("utf-8").count(mistake.right) for path in found)
    if times != 1:
        sys.exit(f"{mistake.name}: its text is there {times} times, not once: {mistake.right!r}")
    return found[0]


def outcome(mistake: Mistake, copy: Path) -> str:
    """Plant the mistake in `copy`, run its tests, and take the mistake out again."""
    path = place_of(mistake, copy / "alm")
    text = path.read_text("utf-8")
    tests = [str(found) for name in mistake.tests for found in sorted((copy / "tests").rglob(f"{name}.py"))]
    if not tests:
        sys.exit(f"{mistake.name}: no test file is named {' or '.join(mistake.tests)}")
    path.write_text(text.replace(mistake.right, mistake.wrong), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-m", "not slow and not llamacpp", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "caught (it hangs)"
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode == NOTHING_FAILED:
        return "NOT CAUGHT"
    failed = [
        line.partition("::")[2].partition(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")
    ]
    if done.returncode != TESTS_FAILED or not failed:
        sys.exit(f"{mistake.name}: the tests did not run\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}")
    return f"caught by {failed[0]}"


def say(line: str) -> None:
    """Write a line of the table to stdout."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Try the mistakes; the exit code is 1 if one is not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names of mistakes to try, with * and ?")
    parser.add_argument("--alm", type=Path, default=ROOT, metavar="DIR", help="the checkout to try")
    given = parser.parse_args()
    chosen = [mistake for mistake in MISTAKES if fnmatch.fnmatch(mistake.name, given.only)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="alm-planted-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = given.alm / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        for mistake in chosen:  # before any time is spent
            place_of(mistake, copy / "alm")
        for mistake in chosen:
            began = time.monotonic()
            found = outcome(mistake, copy)
            missed += found == "NOT CAUGHT"
            say(f"{mistake.name:55} {found}  ({time.monotonic() - began:.0f} s)")
    say(f"{len(chosen) - missed} of {len(chosen)} caught")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
