"""Kinds of tokenizer model, one module each."""
