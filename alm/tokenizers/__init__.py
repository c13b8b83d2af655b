"""Tokenizers: training, the file that every other tool reads, encoding and decoding."""
