"""Kinds of source. Each module has

- `Config`, the keys of the source in a corpus file,
- `inputs(config)`, the paths of the files of this machine that it reads, sorted, without any network,
- `survey(config, *, on_event)`, an `alm.corpus.document.Survey`: the parts there are to read, in order, each of
  about `PART_BYTES` at most where the kind can cut; what is wrong with `config` is found here,
- `read(config, parts, *, revision, on_event)`, a generator of the documents (and what was left out) of some parts,
  the same whichever process asks, and whatever other parts there are.
"""

PART_BYTES = 64 << 20
SPOOL = "input"  # where standard input is kept while it is prepared
