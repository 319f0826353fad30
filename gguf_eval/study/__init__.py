"""Who runs what, and where it is kept."""
