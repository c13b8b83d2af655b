"""The stage `alm corpus prepare`: passes over the units of a source, and what decides between them."""
