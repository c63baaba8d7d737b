"""How the members of an ensemble are weighted: one file a strategy."""
