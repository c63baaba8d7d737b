"""From image files to batches: sources, cache, folds, loader, augmentation."""
