"""Networks of timm that learn from nothing but a few thousand images: ConvNeXt, Swin, MobileNetV4 and ViT.

    python benchmarks/networks.py [--rows 4000] [--judged 2000] [--epochs 6] [--only WORD ...] [--data FOLDER]

In an empty folder, the benchmark writes a competition of labelled images of cifar10.zip in `--data`, with one recipe
for each network, and runs podium prepare and podium train. No network has pretrained weights. The images are enlarged
to 64 pixels; Swin and ViT are built for this size. Accuracy is that of the `--judged` validation rows, of which no
network has seen one; chance is 0.10. About 20 CPU minutes.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from layouts import DATA, LAYOUTS, cpu_seconds, read_photos, run_podium

from podium.metrics import wilson_interval
from podium.predictions.artefact import load_predictions

COMPETITION = """
title = "Networks without pretrained weights"
[data]
source = "folders"
test = ""
[validation]
rows = {judged}
"""
RECIPE = """
architecture = "timm:{name}"
epochs = {epochs}
batch_size = 64
learning_rate = 0.001
training_pixels = 64
test_time_augmentation = "flip"
{others}
[augment]
flip = "horizontal"
shift_pixels = 3
"""
# timm's name -> further keys of its recipe.
NETWORKS = {
    "convnext_atto": "",
    "swin_tiny_patch4_window7_224": "layer_decay = 0.9",
    "mobilenetv4_conv_small": "",
    "vit_tiny_patch16_224": "drop_path = 0.05",
}


def write_competition(root: Path, data: Path, names: Sequence[str], *, rows: int, judged: int, epochs: int) -> None:
    """Write labelled images in class folders, the settings and the recipes, and prepare them."""
    layout = next(layout for layout in LAYOUTS if layout.archive == "cifar10.zip" and not layout.pixels)
    for place, photo in enumerate(read_photos(layout, data, rows + judged)):
        file = root / "data" / "task" / "train" / photo.label / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        photo.image.save(file)
    folder = root / "competitions" / "task"
    folder.mkdir(parents=True)
    (folder / "competition.toml").write_text(COMPETITION.format(judged=judged))
    for name in names:
        (folder / f"{name}.toml").write_text(RECIPE.format(name=name, epochs=epochs, others=NETWORKS[name]))
    run_podium(root, "prepare")


def measure(root: Path, name: str) -> list[str]:
    """The row of the table: the network is trained by a command of its own."""
    started = cpu_seconds()
    run_podium(root, "train", name)
    seconds = cpu_seconds() - started
    predictions = load_predictions(root / "oof" / "task" / f"{name}.s1.npz")
    rows, scores = len(predictions.oof_ids), predictions.about["scores"]
    low, high = wilson_interval(scores["accuracy"] * rows, rows)
    interval, precision = f"{low:.4f} to {high:.4f}", predictions.about["precision"]
    return [name, f"{scores['accuracy']:.4f}", interval, f"{scores['log_loss']:.3f}", precision, f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000, help="training images")
    parser.add_argument("--judged", type=int, default=2000, help="validation images")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", nargs="+", default=[""], help="networks whose names contain one of these words")
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of the archive; default: {DATA.name}/ beside")
    arguments = parser.parse_args()
    names = [name for name in NETWORKS if any(word in name for word in arguments.only)]
    sizes = {"rows": arguments.rows, "judged": arguments.judged, "epochs": arguments.epochs}
    print("| network | accuracy | 95 % interval | log loss | precision | CPU s |\n|" + " --- |" * 6, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_competition(Path(folder), arguments.data, names, **sizes)
        for name in names:
            print(f"| {' | '.join(measure(Path(folder), name))} |", flush=True)


if __name__ == "__main__":
    main()
