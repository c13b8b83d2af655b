"""Kinds of feed-forward layer: a module has `Config` and `build(config, model)`.

For `alm/model/count.py` it has `matmul_parameters(config, model)` and `saved_bytes(config, model, *, narrow)`.
It also has `parameters(config, model)` if not all of them multiply a token.
The module that `build` returns maps (B, T, D) to (B, T, D). In training it may set an `auxiliary_loss`.
The tensor code is in a private module beside the kind, so that reading a configuration does not import torch.
"""
