"""The story of a run: read from its folder, drawn as a page."""
