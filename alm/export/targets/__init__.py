"""Kinds of export: what `alm export --to` names.

A module has

    Config                                  a `TargetConfig` with `kind` and `dtype`, the type of the numbers
    TOOL                                    the package that `compare` needs, as pip knows it
    refusals(config, source)                why the model cannot be written, one plain sentence each; none where it can
    write(config, source, folder)           writes its files into the empty `folder`
    compare(config, source, folder)         what the other tool makes of them, `Comparison`s; None where it is not there
    usage(config, source, name)             Markdown: how a person loads the folder called `name`

Heavy imports stay inside functions. Modules whose name begins with `_` are no kinds: they help those beside them.
"""
