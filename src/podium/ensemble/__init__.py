"""The ensemble: which runs are members, with which weights, and what their blend scores."""
