"""The page of runs: what it says of whole, unfinished and damaged ones, and what it never does."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders import logged_row, sample_row, scored_row, write_packed, write_run

from alm.artifacts import RunMetadata
from alm.artifacts import read as read_metadata
from alm.artifacts import write as write_metadata
from alm.corpus.held_out import in_words
from alm.errors import ArtifactError, ConfigError, InputError
from alm.files import sha256
from alm.report.report import report

HOSTILE = "</title><script>alert(1)</script></style><img src=https://x.y/z onerror=y> & \u202e \x00 \"'"
VOID = {"meta", "line", "rect", "circle", "path"}
FETCHING = {"script", "img", "link", "iframe", "object", "embed", "audio", "video", "source", "image", "use", "base"}


class Tags(HTMLParser):
    """Collects tags and attributes, and sees to it that tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def rows(steps: int = 12, *, start: float = 6.0) -> list[dict[str, Any]]:
    made = [logged_row(step, start - step / 10) for step in range(1, steps + 1)]
    return sorted([*made, scored_row(4, 2.5), scored_row(8, 2.2), scored_row(12, 2.0)], key=lambda row: row["step"])


def made(*runs: Path, **options: Any) -> str:
    return report(runs, **options).out.read_text("utf-8")


def test_nothing_is_fetched_and_no_text_becomes_markup(tmp_path: Path) -> None:
    texts = [sample_row(1, HOSTILE, HOSTILE), sample_row(12, "", HOSTILE)]
    run = write_run(tmp_path / "a<b>&c", rows(), texts=texts, samples__prompts=[HOSTILE])
    other = write_run(tmp_path / "other", rows(), texts=texts)
    for page in (made(run), made(run, other, out=tmp_path / "two.html")):
        tags = Tags(page)
        assert not tags.seen & FETCHING
        assert not tags.attributes & {"src", "href", "style", "srcset", "data", "poster", "background", "onerror"}
        own = page.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("src=https://x.y/z", "")
        assert not re.search(r"//|url\(|@import|@font-face", own)
        assert "\u202e" not in page
        assert "a<b>&c" in tags.text


def test_a_run_alone_tells_its_values(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "first", rows(), texts=[sample_row(1, "Once", "xx"), sample_row(12, "Once", " upon")], finished=True
    )
    page = made(run)
    text = Tags(page).text
    assert (run / "report.html").read_text("utf-8") == page
    assert "The run is finished at step 12. It needs 2.000 ± 0.050 bits for a byte of held-out text." in text
    for fact in ("12,345", "12,000", "2,000", "0:06", "25.0%", "1.0%", "500.0 MB"):
        assert fact in text, fact
    assert text.index("Bits per byte on held-out text") < text.index("Training loss")
    assert text.index("step 1xx") < text.index("step 12 upon")
    assert text.index("Other than the defaults") < text.index("optim.lr")
    assert len(re.findall(r'role="img" aria-label="', page)) == 5
    assert len(re.findall(r"<summary>Values</summary>", page)) == 5
    values = page.partition("<summary>Values</summary>")[2].partition("</details>")[0]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", values) == ["4", "2.5000", "8", "2.2000", "12", "2.0000"]


def test_runs_side_by_side_tell_how_they_differ(tmp_path: Path) -> None:
    first = write_run(tmp_path / "x" / "run", rows(), finished=True)
    second = write_run(tmp_path / "y" / "run", [*rows()[:7], scored_row(7, 1.5, None)], optim__lr=0.5, training__seed=7)
    page = made(first, second, out=tmp_path / "both.html")
    text = Tags(page).text
    table = page.partition("difference to A")[2].partition("</table>")[0]
    first_row, second_row = re.findall(r"<tr>(.*?)</tr>", table)[-2:]
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in (first_row, second_row)]
    assert cells[0][:3] == ["A", "2.000 ± 0.050", ""]
    assert cells[1][:3] == ["B", "1.5000", "-0.5000"]
    assert "A x/run" in text
    assert "B y/run" in text
    differing = page.partition("What differs")[2].partition("</table>")[0]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", differing) == ["training.seed", "1337", "7", "optim.lr", "0.01", "0.5"]
    assert "would move all scores in the same way" in text
    assert len(re.findall(r'class="name"', page)) == 10


def test_runs_on_other_text_are_not_compared(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, rows()) for name in "ab")
    metadata = read_metadata(second / "run.json", RunMetadata, hint="")
    other = {"data_sha256": "1" * 64, "tokenizer_sha256": "2" * 64}
    write_metadata(second / "run.json", metadata.model_copy(update=other))
    text = Tags(made(first, second, out=tmp_path / "both.html")).text
    assert "packed differently" in text
    assert "of different tokenizers: they cannot be compared" in text
    assert "All runs have the same configuration." in text
    more = write_run(tmp_path / "more", rows(), validation__bytes=9000)
    assert "scored on different amounts of the same text" in Tags(made(first, more, out=tmp_path / "both.html")).text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "No step has been logged yet."),
        ([logged_row(3, None)], "at step 3 of 12"),
        ([logged_row(1, 5.0)], "this run has no bits per byte"),
        (
            [logged_row(1, 5.0), logged_row(2, float("nan")), scored_row(2, float("inf"))],
            "not finished: at step 2 of 12",
        ),
        ([logged_row(1, 5.0, gradient_norm=0.0, lr=0.0)], "It has written no samples."),
        ([{"step": 2, "skipped_rows": [4, 5]}, logged_row(2, None)], "1 step was skipped"),
    ],
)
def test_a_run_with_little_to_show_still_has_a_page(tmp_path: Path, given: list[dict[str, Any]], said: str) -> None:
    run, whole = write_run(tmp_path / "run", given), write_run(tmp_path / "whole", rows())
    text = Tags(made(run)).text
    assert said in text
    assert "nan" not in text.lower().replace("finance", "")
    Tags(made(run, whole, out=tmp_path / "both.html"))


def test_damaged_lines_stops_and_changes_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows())
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'rubbish\n{"step": 13, "lo')
    (run / "ckpt-step000007-interrupt.pt").touch()
    aside = run / "set-aside-1"
    aside.mkdir()
    (aside / "metrics.jsonl").write_text('{"step": 9}\n{"step": 12}\n')
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("max_steps: 12", "max_steps: 20"))
    text = Tags(made(run)).text
    assert "1 line of the run's records cannot be read" in text
    assert "saved, at step 7." in text
    assert "set aside in set-aside-1: steps 9 to 12" in text
    assert "training.max_steps 12 → 20" in text
    assert "not finished: at step 12 of 20" in text
    (run / "config.yaml").write_text("{")
    assert "finished" in Tags(made(run)).text


def test_the_lineage_reaches_sources_and_says_when_it_does_not(tmp_path: Path) -> None:
    packed, metadata = write_packed(tmp_path / "made")
    run = write_run(tmp_path / "made" / "runs" / "one", rows())
    told = read_metadata(run / "run.json", RunMetadata, hint="")
    known = {"data": "../../packed", "data_sha256": sha256(packed / "metadata.json")}
    write_metadata(run / "run.json", told.model_copy(update=known))
    text = Tags(made(run)).text
    assert "not stated" in text
    assert f"{metadata.input_tokens:,} in rows of 16" in text
    assert f"bpe, {metadata.vocab_size:,} tokens, learned from 200 documents" in text
    assert metadata.held_out is not None
    assert f"held-out text ({in_words(metadata.held_out)})." in text
    assert "texts that the model has not seen" in text
    (tmp_path / "made" / "clean" / "s.json").unlink()
    assert "clean text not found" in Tags(made(run)).text
    (packed / "metadata.json").write_bytes((packed / "metadata.json").read_bytes() + b"\n")
    assert "now holds other data" in Tags(made(run)).text
    (packed / "metadata.json").unlink()
    assert "is missing or cannot be read" in Tags(made(run)).text


def test_only_its_own_page_is_replaced(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows())
    out = tmp_path / "page.html"
    out.write_text("<html>mine")
    with pytest.raises(ArtifactError, match="was not made by `alm report`") as caught:
        report([run], out=out)
    assert "--force" in str(caught.value.hint)
    assert out.read_text() == "<html>mine"
    report([run], out=out, force=True)
    report([run], out=out)
    assert out.read_text("utf-8") == (report([run]).out).read_text("utf-8")


def test_wrong_runs_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows())
    with pytest.raises(InputError, match="does not contain a run"):
        report([tmp_path])
    with pytest.raises(ConfigError, match="named twice"):
        report([run, tmp_path / "." / "run"])
    with pytest.raises(ConfigError, match="9 runs are too many"):
        report([tmp_path / str(number) for number in range(9)])
    assert not (tmp_path / "report.html").exists()
