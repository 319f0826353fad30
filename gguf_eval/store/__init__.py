"""The study file: its tables, what a run writes and looks up, and what reports read of it."""
