"""Configuration: frozen pydantic models, YAML with all problems told at once, shipped presets."""
