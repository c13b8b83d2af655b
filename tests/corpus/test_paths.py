"""What paths mean: each file once, whatever links, folders and globs lead to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alm.corpus.paths import expand, listing
from alm.errors import InputError

TXT = frozenset({".txt"})


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_a_folder_means_the_files_below_it_with_the_suffixes(tmp_path: Path) -> None:
    tree(tmp_path, "b.txt", "a/c.txt.gz", "a/d.md", ".git/e.txt", "a/.f.txt", "z.TXT")
    assert names(expand([str(tmp_path)], suffixes=TXT), tmp_path) == ["a/c.txt.gz", "b.txt", "z.TXT"]


def test_named_files_and_what_globs_match_count_whatever_their_suffix(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "b.md", "c.md", "d/e.txt", "d/f.md")
    given = [str(tmp_path / "b.md"), str(tmp_path / "[cd]*")]
    assert names(expand(given, suffixes=TXT), tmp_path) == ["b.md", "c.md", "d/e.txt"]
    assert names(expand([str(tmp_path / "d"), str(tmp_path / "d/*")], suffixes=TXT), tmp_path) == ["d/e.txt", "d/f.md"]


def test_a_name_with_the_characters_of_a_glob_is_a_name(tmp_path: Path) -> None:
    tree(tmp_path, "a[1].txt", "a1.txt")
    assert names(expand([str(tmp_path / "a[1].txt")], suffixes=TXT), tmp_path) == ["a[1].txt"]


def test_two_stars_reach_every_depth(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "b/c.txt", "b/c/d.txt", "b/c/d.md", "b/.h/e.txt")
    assert names(expand([str(tmp_path / "**/*.txt")], suffixes=TXT), tmp_path) == ["a.txt", "b/c.txt", "b/c/d.txt"]
    assert names(expand([str(tmp_path / "b/**/d.*")], suffixes=TXT), tmp_path) == ["b/c/d.md", "b/c/d.txt"]
    assert names(expand([str(tmp_path / "b/**")], suffixes=TXT), tmp_path) == ["b/c.txt", "b/c/d.md", "b/c/d.txt"]


@pytest.mark.parametrize("given", ["", "**/*.txt"])
def test_links_that_go_round_in_circles_end_and_give_each_file_once(tmp_path: Path, given: str) -> None:
    tree(tmp_path, "top/a.txt", "top/sub/b.txt", "outside/c.txt")
    for name, target in {
        "top/sub/up": "..",
        "top/sub/again": "../sub",
        "top/self": "self",
        "top/aaa": "sub",  # before the folder it leads to, in every order of names
        "top/way": "../outside",
        "top/way2": "../outside",
        "top/gone": "nothing",
        "top/everything": "../..",  # would read what lies around the folder
        "top/file.txt": "sub/b.txt",
    }.items():
        (tmp_path / name).symlink_to(target)
    found = expand([str(tmp_path / "top" / given)], suffixes=TXT)
    assert names(found, tmp_path) == ["top/a.txt", "top/sub/b.txt", "top/way/c.txt"]


def test_several_ways_to_a_file_give_it_once_whatever_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "a.txt")
    (tmp_path / "link.txt").symlink_to("a.txt")
    monkeypatch.chdir(tmp_path)
    ways = ["link.txt", "a.txt", ".", "*.txt"]
    for given in (ways, ways[::-1]):
        assert [(f.path.as_posix(), f.found) for f in listing(given).files] == [("a.txt", "named")]
    assert [f.path.as_posix() for f in listing(["link.txt"]).files] == ["link.txt"]


def test_hidden_entries_are_counted(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", ".git/x", ".git/y", "b/.hidden")
    assert listing([str(tmp_path)]).hidden == 2


def test_names_no_text_could_have_are_found(tmp_path: Path) -> None:
    odd = [b"new\nline.txt", b"caf\xe9.txt"]
    for name in odd:
        (tmp_path / os.fsdecode(name)).write_text("x")
    assert sorted(os.fsencode(path.name) for path in expand([str(tmp_path)], suffixes=TXT)) == sorted(odd)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="does not exist"):
        expand([str(tmp_path / "none.txt")], suffixes=TXT)
    with pytest.raises(InputError, match="does not exist"):
        expand([str(tmp_path / "**/*.txt")], suffixes=TXT)
    with pytest.raises(InputError, match="holds no file that ends in .txt"):
        expand([str(tmp_path / "empty")], suffixes=TXT)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        expand([str(tmp_path / "pipe")], suffixes=TXT)
    with pytest.raises(InputError, match="cannot be read"):
        expand([str(tmp_path / ("x" * 300))], suffixes=TXT)
