"""Batches of images on the device, augmented."""
