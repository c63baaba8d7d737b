"""Which runs a competition has and which are up to date; only the standard library is imported."""
