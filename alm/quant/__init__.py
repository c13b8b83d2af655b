"""Quantized weights: small integers with scales, and the file that holds them."""
