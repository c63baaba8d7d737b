"""From a checked CSV to its score on Kaggle, by the kaggle CLI."""
