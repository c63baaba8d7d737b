"""Podium: from a folder of labelled images to a submission that can be trusted."""

__version__ = "0.1.0"
