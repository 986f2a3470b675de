"""The built-in tasks by name, and what `gossamer tasks` says of them before torch is imported. A new one is an entry
here and a module with a `TASK`, named as the task."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BuiltIn:
    """What is known of a task before it is made."""

    name: str
    description: str
    epochs: int
    """Epochs of a round."""
    metric: str = "accuracy"

    @property
    def module(self) -> str:
        """Where its `TASK` is."""
        return f"gossamer.tasks.{self.name.replace('-', '_')}"


DIGITS = BuiltIn("digits", "a small CNN on 1,797 real 8x8 digits (embedded; the demonstration)", epochs=20)
LENET_300_100 = BuiltIn(
    "lenet-300-100", "LeNet-300-100 on MNIST (fully connected, 266,200 prunable weights)", epochs=15
)
LENET_5 = BuiltIn("lenet-5", "LeNet-5, Caffe's, on MNIST (convolutional, 430,500 prunable weights)", epochs=8)
RESNET_20 = BuiltIn("resnet-20", "ResNet-20 on CIFAR-10 (271,152 prunable weights)", epochs=182)
RESNET_56 = BuiltIn("resnet-56", "ResNet-56 on CIFAR-10 (851,760 prunable weights)", epochs=182)
CHAR_GPT = BuiltIn(
    "char-gpt", "a GPT of 4 blocks on a text file, by characters (819,200 prunable weights)", epochs=4, metric="loss"
)
SHAPES_DETECTOR = BuiltIn(
    "shapes-detector",
    "a detector of the YOLO kind on drawn shapes (embedded; 1,206,896 prunable weights)",
    epochs=6,
    metric="mAP",
)
IMAGE_FOLDER_RESNET_18 = BuiltIn(
    "image-folder-resnet-18", "ResNet-18 on your folder of images (--data DIR, with DIR/train/CLASS/*.jpg)", epochs=90
)
IMAGE_FOLDER_RESNET_50 = BuiltIn(
    "image-folder-resnet-50", "ResNet-50 on your folder of images, by the paper's recipe for ImageNet", epochs=90
)
TEXT_CLASSIFICATION = BuiltIn(
    "text-classification", "a small BERT on your folder of labelled texts (--data DIR, with DIR/train.csv)", epochs=4
)

BUILT_IN = {
    task.name: task
    for task in (
        DIGITS,
        LENET_300_100,
        LENET_5,
        RESNET_20,
        RESNET_56,
        CHAR_GPT,
        IMAGE_FOLDER_RESNET_18,
        IMAGE_FOLDER_RESNET_50,
        TEXT_CLASSIFICATION,
        SHAPES_DETECTOR,
    )
}
