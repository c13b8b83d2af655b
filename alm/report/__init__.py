"""Reports on runs: reads the folder of a run and draws a page."""
