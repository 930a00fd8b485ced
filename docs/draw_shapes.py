"""Draw docs/figures/shapes.png: python docs/draw_shapes.py."""

from __future__ import annotations

from pathlib import Path

from graphrec.pipelines.images import plot_images, shape_images


def main() -> None:
    """Twenty-four of the shapes that docs/images.md draws."""
    path = Path(__file__).parent / "figures" / "shapes.png"
    plot_images(shape_images(120, side=48), 24).savefig(path, dpi=64)


if __name__ == "__main__":
    main()
