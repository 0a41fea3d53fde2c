"""Data sets and augmentations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl
from genkit.plugin.registry import Registration

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the data sets and the augmentations."""
    registry.add("dataset", "digits", "genkit_data.handwritten:Digits")
    registry.add("dataset", "cifar10", "genkit_data.cifar10:CIFAR10")
    registry.add("dataset", "edm-zip", "genkit_data.edm_zip:EDMZip")
    registry.add("dataset", "npz", "genkit_data.npz:NPZ")
    registry.add("dataset", "huggingface", "genkit_data.huggingface:HuggingFace")
    registry.add("dataset", "mirrored", "genkit_data.mirrored:Mirrored")
    registry.add("dataset", "fashion-mnist", "genkit_data.fashion_mnist:FashionMNIST")
    registry.add("dataset", "image-folder", "genkit_data.image_folder:ImageFolder")
    registry.add("dataset", "real-and-fake", "genkit_data.real_and_fake:RealAndFake")
    registry.add("dataset", "swiss-roll", "genkit_data.points:SwissRoll")
    registry.add("dataset", "moons", "genkit_data.points:Moons")
    registry.add("dataset", "tensors", "genkit_data.tensors:Tensors")
    registry.add("augmentation", "flip", "genkit_data.flip:Flip")
    registry.add("augmentation", "edm", "genkit_data.augment:EdmAugmentation")


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the command group ``genkit data``."""
    from genkit_data.commands import app as data

    app.add_typer(data, name="data")
