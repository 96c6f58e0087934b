"""What lavit_mobile_s could be instead: each is another net, learns as a whole, and folds exactly."""

from __future__ import annotations

import pytest
import torch
from mobile_variants import BUILDERS, OF, pooled

from lavit_edge import create_model


@pytest.mark.parametrize("name", BUILDERS)
def test_a_variant_learns_and_folds(name: str) -> None:
    torch.manual_seed(0)
    options, x = dict(num_classes=10, image_size=64), torch.randn(4, 3, 64, 64)
    model, usual = BUILDERS[name](**options), create_model(OF, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            torch.nn.init.ones_(module.weight)  # a branch that starts as nothing would hide what is in it
    features, maps = model.train().features(x)
    (model.head(features).square().mean() + model.auxiliary_loss(maps)).backward()
    idle = [path for path, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []
    with torch.no_grad():
        torch.testing.assert_close(model.eval().deploy()(x), model(x), rtol=1e-3, atol=1e-3)
    kinds = [[(type(module), str(module)) for module in net.modules()] for net in (model, usual)]
    assert kinds[0] != kinds[1]


def test_pooled_scores_are_means_of_neighbours() -> None:
    scores, n = torch.randn(3, 16, 16), 2
    blocks = scores.reshape(3, n, 2, n, 2, n, 2, n, 2).mean((2, 4, 6, 8))
    torch.testing.assert_close(pooled(scores, 2 * n), blocks.reshape(3, 4, 4))
