"""A trained model as files of other tools, and back."""
