"""``lavit_small`` on ImageNet-1k at 224 pixels, 300 epochs: as ``imagenet_tiny`` with more drop path.

The paper reports 82.6 % top-1. Never run.

torchrun --nproc_per_node=8 -m lavit_edge.train --recipe imagenet_small --data IMAGENET --out runs/small --compile
"""

from dataclasses import replace

from lavit_edge.train.recipes import imagenet_tiny

RECIPE = replace(imagenet_tiny.RECIPE, model="lavit_small", drop_path=0.2)
