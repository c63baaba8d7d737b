"""Kinds of target: what a label is, and how logits become what is scored. Only NumPy is imported."""
