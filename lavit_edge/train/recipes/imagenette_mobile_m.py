"""``lavit_mobile_m`` on Imagenette at 160 pixels, from scratch or distilled, on a GPU.

Cost and result: never run.

    python -m lavit_edge.train --recipe imagenette_mobile_m --data IMAGENETTE --out runs/m --compile --workers 14
"""

from dataclasses import replace

from lavit_edge.train.recipes import imagenette_mobile_s

RECIPE = replace(imagenette_mobile_s.RECIPE, model="lavit_mobile_m", drop_path=0.05)
