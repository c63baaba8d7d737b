"""From a checked CSV to its score on Kaggle, through the package kaggle."""
