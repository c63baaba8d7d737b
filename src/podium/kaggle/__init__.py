"""From a checked CSV to a verified score: the kaggle CLI, believed little."""
