"""``lavit_base`` on ImageNet-1k at 224 pixels, 300 epochs: as ``imagenet_tiny`` with more drop path.

The paper reports 83.1 % top-1. Never run.

torchrun --nproc_per_node=8 -m lavit_edge.train --recipe imagenet_base --data IMAGENET --out runs/base --compile
"""

from dataclasses import replace

from lavit_edge.train.recipes import imagenet_tiny

RECIPE = replace(imagenet_tiny.RECIPE, model="lavit_base", drop_path=0.3)
