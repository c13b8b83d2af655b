"""Configuration: frozen pydantic models, YAML with all problems reported at once, and presets."""
