"""Kinds of source. Each module has

- `Config`, the keys of the source in a corpus file,
- `inputs(config)`, the paths of the local files that it reads, sorted, without network access,
- `survey(config, *, on_event)`, an `alm.corpus.document.Survey`: the parts to read, in order, each of at most about
  `PART_BYTES` if the kind can cut them; errors in `config` are raised here,
- `read(config, parts, *, revision, on_event)`, a generator of the documents (and `Dropped` items) of some parts,
  which depends neither on the process nor on the other parts.
"""

PART_BYTES = 64 << 20
SPOOL = "input"  # name of the file that stores standard input while it is prepared
