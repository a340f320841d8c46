"""The steps on the page of the config give the gradients that the page says they give."""

import torch
from support.pages import DOCS, blocks
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


def steps_of_the_page():
    found = {}
    for block in blocks(DOCS["config.md"], "python"):
        if "StepOutput" in block:
            exec(compile(block, "config.md", "exec"), found)
    return found


STEPS = steps_of_the_page()


def gradients(module):
    return {name: one.grad.clone() for name, one in module.named_parameters()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6))
        self.discriminator = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 1))


def test_one_loss_gives_both_networks_of_a_gan_the_gradients_of_two_optimizers():
    torch.manual_seed(0)
    model, real = Gan(), torch.randn(16, 6)
    torch.manual_seed(1)
    output = STEPS["gan_step"]()(model, (real, torch.zeros(16)))
    assert output.loss_B.shape == (16,)
    assert set(output.parts) == {"generator", "discriminator"}
    output.loss_B.mean().backward()
    found = gradients(model)
    torch.manual_seed(1)
    fake = model.generator(torch.randn(16, 8))
    yes, no = torch.ones(16, 1), torch.zeros(16, 1)
    judged = model.discriminator(fake.detach())
    model.zero_grad()
    binary_cross_entropy_with_logits(model.discriminator(real), yes).backward()
    binary_cross_entropy_with_logits(judged, no).backward()
    of_discriminator = gradients(model.discriminator)
    model.zero_grad()
    binary_cross_entropy_with_logits(model.discriminator(fake), yes).backward()
    of_generator = gradients(model.generator)
    assert_close(
        found,
        {f"generator.{name}": one for name, one in of_generator.items()}
        | {f"discriminator.{name}": one for name, one in of_discriminator.items()},
    )


def test_a_sharpness_aware_step_has_the_gradient_at_the_moved_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    data, target = torch.randn(16, 6), torch.arange(16) % 3
    step, rho = STEPS["sam_step"](rho=0.3), 0.3
    step(model, (data, target)).loss_B.mean().backward()
    found = gradients(model)
    model.zero_grad()
    cross_entropy(model(data), target).backward()
    first = gradients(model)
    norm = torch.sqrt(sum((one**2).sum() for one in first.values()))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(rho * first[name] / norm)
    model.zero_grad()
    cross_entropy(model(data), target).backward()
    assert_close(found, gradients(model))


def test_in_validation_a_sharpness_aware_step_is_the_plain_loss():
    model = nn.Linear(6, 3).eval()
    data, target = torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        found = STEPS["sam_step"]()(model, (data, target))
    torch.testing.assert_close(found.loss_B, cross_entropy(model(data), target, reduction="none"))
