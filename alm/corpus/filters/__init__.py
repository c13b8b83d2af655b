"""Kinds of filter, which keep, change or drop the normalised documents of a source. Each module has

- `Config`, the keys of the filter in a corpus file (thresholds have the published values as defaults),
- `build(config)`, a callable `Draft -> Draft | Drop` (`alm.corpus.draft`): the same draft if nothing changes, a new
  one if the text changes, a `Drop` with the reason if the document is dropped,
- `inputs(config)`, only if the filter reads files: their paths, so that a change of these files is noticed.

A filter that applies rules also has `broken_rules(draft)`, a generator of the reasons of all rules that the document
breaks, in the order of the paper. It computes them one by one, because the filter stops at the first.

Reasons are snake_case, unique among all filters, and begin with the kind: `gopher_quality_too_few_words`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from alm.corpus.draft import Draft, Drop


def first_broken(broken_rules: Callable[[Draft], Iterator[str]]) -> Callable[[Draft], Draft | Drop]:
    """Make a filter that drops a document for the first rule that it breaks."""

    def judge(draft: Draft) -> Draft | Drop:
        reason = next(broken_rules(draft), None)
        return draft if reason is None else Drop(reason)

    return judge
