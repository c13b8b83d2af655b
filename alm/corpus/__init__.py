"""Clean corpora from any text: sources, normalisation, filters, deduplication, the split, and reading them back."""
