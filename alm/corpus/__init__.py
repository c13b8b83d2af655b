"""From any text to a clean corpus: sources, normalisation, the split, and reading it back."""
