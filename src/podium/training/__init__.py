"""From a recipe to a trained run: the only place where fastai lives."""
