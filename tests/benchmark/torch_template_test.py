"""The PyTorch network that steps are compared with is the recorded one; only where torch is installed."""

import json

import numpy as np
import pytest
from case import fixtures

from nas_seg.template.genotype import TemplateGenotype, published
from nas_seg.template.plan import count

torch = pytest.importorskip("torch")
torch_template = pytest.importorskip("nas_seg.benchmark.torch_template")


@pytest.mark.parametrize("name", ["wacv_arch0_cv11", "wacv_rand0_cs19"])
def test_its_logits_are_the_recorded_ones_with_the_recorded_weights(name):
    folder = fixtures("template")
    facts = json.loads((folder / "manifest.json").read_text())[name]
    genotype = TemplateGenotype.from_lists(facts["config"])
    network = torch_template.TemplateNet(genotype, facts["num_classes"], facts["agg_size"], facts["sep_repeats"])
    own = network.state_dict()
    recorded = {
        key: torch.from_numpy(np.array(value)) for key, value in np.load(folder / f"{name}.weights.npz").items()
    }
    network.load_state_dict({key: value.reshape(own[key].shape) for key, value in recorded.items()})
    pictures = np.load(folder / f"{name}.io_97x129.npz")
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(pictures["input"])).numpy()
    # The same operations of another version of PyTorch, perhaps on another processor.
    np.testing.assert_allclose(logits, pictures["logits"], rtol=0, atol=1e-5 * pictures["logits"].std())


@pytest.mark.parametrize("name", ["arch0", "arch1"])
def test_it_has_as_many_parameters_and_its_steps_learn(name):
    network = torch_template.TemplateNet(published(name), 11)
    assert sum(p.numel() for p in network.parameters()) == count(published(name), 11).params
    step = torch_template.training_step(published(name), 3, (33, 49), 2, torch.channels_last)
    losses = [step() for _ in range(20)]
    assert losses[-1] < losses[0]
