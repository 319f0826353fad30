"""Pure functions over stored outcomes."""
