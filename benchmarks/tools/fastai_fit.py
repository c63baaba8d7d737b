"""What a user of fastai writes: `fine_tune` with its defaults, as in the tutorial of `vision_learner`."""

import sys

import pandas as pd
from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, get_image_files, set_seed, vision_learner

side, epochs, mirrored = (int(word) for word in sys.argv[1:])
set_seed(1)
augment = aug_transforms(do_flip=bool(mirrored))
dls = ImageDataLoaders.from_folder("../images", valid="val", item_tfms=Resize(side), batch_tfms=augment, num_workers=0)
learner = vision_learner(dls, "local-dir:../../weights")
learner.fine_tune(epochs - 1)  # and one epoch of the head alone
files = get_image_files("../images/test")
predictions, _ = learner.get_preds(dl=dls.test_dl(files))
labels = [dls.vocab[place] for place in predictions.argmax(dim=1)]
pd.DataFrame({"id": [file.stem for file in files], "label": labels}).to_csv("submission.csv", index=False)
