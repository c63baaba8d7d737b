"""Searching better values for a recipe's keys, on rows that are neither validation nor test."""
