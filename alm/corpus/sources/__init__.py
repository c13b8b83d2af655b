"""Kinds of source. Each module has

- `Config`, the keys of the source in a corpus file,
- `inputs(config)`, the paths of the files it reads, sorted, without any network,
- `open_source(config, *, on_event)`, an `alm.corpus.document.Source` that yields the documents.
"""
