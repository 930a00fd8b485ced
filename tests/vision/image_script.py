"""Fit a classifier of images in one of the processes that `test_image_training.py` starts."""

import os
import sys
from pathlib import Path

from picture_tools import classifier, squares
from safetensors.torch import save_file


def main(folder: Path) -> None:
    """Fit into a run folder, then write what this process ended with."""
    model = classifier(epochs=2, augment="none", batch_size=17).fit(*squares(50), run_dir=folder / "run")
    save_file(model.module_.state_dict(), folder / f"rank{os.environ['RANK']}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
