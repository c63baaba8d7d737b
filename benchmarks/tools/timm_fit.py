"""What a user of timm writes: its documented fine-tuning at ten times the rate; the package has no train.py."""

import sys
from pathlib import Path

import pandas as pd
import timm
import torch
from timm.data import ImageDataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

side, epochs, mirrored = (int(word) for word in sys.argv[1:])
timm.utils.random_seed(1)
train, test = ImageDataset("../images/train"), ImageDataset("../images/test", class_map={"": 0})
classes = sorted(train.reader.class_to_idx)
network = timm.create_model("local-dir:../../weights", pretrained=True, num_classes=len(classes))
options = {"mean": network.pretrained_cfg["mean"], "std": network.pretrained_cfg["std"], "num_workers": 0}
options |= {"persistent_workers": False, "use_prefetcher": False}
loader = create_loader(train, side, 32, is_training=True, hflip=mirrored / 2, interpolation="random", **options)
optimizer = create_optimizer_v2(network, opt="adamw", lr=0.001, weight_decay=0.01)
steps = {"step_on_epochs": False, "updates_per_epoch": len(loader)}
scheduler, _ = create_scheduler_v2(optimizer, "cosine", epochs, warmup_epochs=epochs / 6, warmup_lr=1e-5, **steps)
criterion, step = LabelSmoothingCrossEntropy(0.1), 0
network.train()
for _ in range(epochs):
    for images, targets in loader:
        scheduler.step_update(step)
        step += 1
        criterion(network(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
network.eval()
with torch.inference_mode():
    batches = create_loader(test, side, 64, interpolation="bicubic", **options)
    labels = [classes[place] for images, _ in batches for place in network(images).argmax(dim=1)]
ids = [Path(name).stem for name in test.filenames(basename=True)]
pd.DataFrame({"id": ids, "label": labels}).to_csv("submission.csv", index=False)
