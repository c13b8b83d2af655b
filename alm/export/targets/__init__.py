"""Kinds of export, chosen by `alm export --to`.

A module has

    Config                                  a `TargetConfig` with `kind` and `dtype`, the type of the numbers
    TOOL                                    the package that `compare` needs, by its name on PyPI
    refusals(config, source)                reasons why the model cannot be written, one sentence each; empty if it can
    write(config, source, folder)           writes its files into the empty `folder`
    compare(config, source, folder)         compares the files in the other tool with alm: a list of `Comparison`s;
                                            raises `UnusableToolError` if the tool cannot be used
    usage(config, source, name)             Markdown: how to load the folder called `name`

Heavy imports stay inside functions. Modules whose name begins with `_` are helpers, not kinds.
"""
