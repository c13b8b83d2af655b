"""Kinds of filter: what is kept of the normalised documents of a source. Each module has

- `Config`, the keys of the filter in a corpus file (thresholds have the published values as defaults),
- `build(config)`, a callable `Draft -> Draft | Drop` (`alm.corpus.draft`): the same draft where nothing is to be
  done, a new one where the text is changed, a `Drop` with the reason where the document goes,
- `inputs(config)`, only where the filter reads files: their paths, so that their hashes decide what is up to date.

A filter that applies rules has `broken_rules(draft)` too, a generator of the reasons of all rules that the document
breaks, in the order of the paper, computed one by one: the filter itself stops at the first.

Reasons are snake_case, unique among all filters, and begin with the kind: `gopher_quality_too_few_words`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from alm.corpus.draft import Draft, Drop


def first_broken(broken_rules: Callable[[Draft], Iterator[str]]) -> Callable[[Draft], Draft | Drop]:
    """A filter that drops a document for the first rule it breaks."""

    def judge(draft: Draft) -> Draft | Drop:
        reason = next(broken_rules(draft), None)
        return draft if reason is None else Drop(reason)

    return judge
