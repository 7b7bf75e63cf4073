"""segkit: semantic segmentation on PaddlePaddle, from labelled photos to a deployed model.

```python
import segkit
seg = segkit.load("output/best_model")        # or an exported folder
mask = seg.predict("cat.jpg")                 # numpy uint8 [H, W], the photo's size
prob = seg.predict_proba(image_array)         # numpy float32 [num_classes, H, W]
cfg = segkit.Config("configs/unet_dove.yml"); model = segkit.train(cfg); segkit.evaluate(cfg, model)
```
Names are imported when they are first used: `import segkit` loads no paddle.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> module that holds it.
_NAMES = {
    "Config": "segkit.config",
    "InputError": "segkit.errors",
    "Segmenter": "segkit.deploy.pipeline",
    "evaluate": "segkit.engine.api",
    "export": "segkit.engine.api",
    "load": "segkit.engine.segmenter",
    "predict": "segkit.engine.api",
    "train": "segkit.engine.api",
}
__all__ = [*_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'segkit' has no attribute '{name}'")
    if _NAMES[name].startswith("segkit.engine"):
        from segkit import runtime

        runtime.require_paddle()
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
