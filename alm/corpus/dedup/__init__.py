"""Search for duplicate documents."""
