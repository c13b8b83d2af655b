"""One run: its folder and settings, its start and its end, and how it fits memory and time."""
