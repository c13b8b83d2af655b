"""The kinds of tokenizer model, one module each."""
