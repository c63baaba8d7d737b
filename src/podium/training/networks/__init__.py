"""Architectures and their pretrained weights."""
