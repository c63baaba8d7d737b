"""What a user of AutoGluon writes: `MultiModalPredictor.fit` of its tutorial, with local weights and fewer epochs."""

import sys
from pathlib import Path

import pandas as pd
from autogluon.multimodal import MultiModalPredictor

side, epochs, _ = (int(word) for word in sys.argv[1:])


def table(part):
    files = sorted(Path("../images", part).rglob("*.*"))
    return pd.DataFrame({"image": [str(file) for file in files], "label": [file.parent.name for file in files]})


settings = {"model.names": ["timm_image"], "model.timm_image.checkpoint_name": "../../weights"}
settings |= {"model.timm_image.image_size": side, "optim.max_epochs": epochs}
predictor = MultiModalPredictor(label="label", presets="medium_quality")
predictor.fit(table("train"), tuning_data=table("val"), hyperparameters=settings, seed=1)
test = table("test")
labels = predictor.predict(test[["image"]])
pd.DataFrame({"id": [Path(file).stem for file in test["image"]], "label": labels}).to_csv("submission.csv", index=False)
