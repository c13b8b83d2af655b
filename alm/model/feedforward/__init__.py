"""Kinds of feed-forward layer: a module has `Config`, `build(config, model)` and `matmul_parameters(config, model)`.

What `build` returns maps (B, T, D) to (B, T, D).
The tensor code lies in a private module beside the kind, so that reading a configuration does not import torch.
"""
