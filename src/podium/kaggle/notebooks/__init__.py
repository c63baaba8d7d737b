"""Training on Kaggle's machines."""
