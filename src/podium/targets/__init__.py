"""What labels are, and how logits become what is scored. Only NumPy is imported."""
