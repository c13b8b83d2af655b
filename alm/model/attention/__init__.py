"""Kinds of attention: a module has `Config`, `build(config, model, layer)`.

For `alm/model/count.py` it has `matmul_parameters(config, model)`, `saved_bytes(config, model, *, narrow)` and
`seen(config, tokens, layer)`.
The module that `build` returns maps (B, T, D) to (B, T, D), given a `ForwardContext` and a `LayerCache` or None.
The tensor code is in a private module beside the kind, so that reading a configuration does not import torch.
"""
