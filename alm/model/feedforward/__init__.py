"""Kinds of feed-forward layer: a module has `Config` and `build(config, model)`.

For `alm/model/count.py` it has `matmul_parameters(config, model)` and `saved_bytes(config, model, *, narrow)`.
`parameters(config, model)` is there where a token is not multiplied with all of them.
What `build` returns maps (B, T, D) to (B, T, D). In training it may leave an `auxiliary_loss` behind.
The tensor code lies in a private module beside the kind, so that reading a configuration does not import torch.
"""
