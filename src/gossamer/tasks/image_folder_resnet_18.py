"""ResNet-18 (He et al., 2016) on a folder of images, trained as in Renda et al. (2020) on ImageNet."""

from gossamer.tasks import built_in
from gossamer.tasks.image_folder import image_task

TASK = image_task(built_in.IMAGE_FOLDER_RESNET_18, depth=18)
