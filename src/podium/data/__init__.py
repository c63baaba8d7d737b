"""From image files to decoded arrays, folds and `data.lock`: NumPy, no torch."""
