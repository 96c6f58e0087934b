"""``lavit_tiny`` on Imagenette at 160 pixels, from scratch or distilled, on a GPU.

Cost and result: never run.

    python -m lavit_edge.train --recipe imagenette_tiny --data IMAGENETTE --out runs/tiny --compile --workers 14
"""

from dataclasses import replace

from lavit_edge.train.recipes import imagenette_mobile_s

RECIPE = replace(imagenette_mobile_s.RECIPE, model="lavit_tiny", lr=1e-3, drop_path=0.1)
