"""Explanations in other people's pipelines: Hugging Face's call, scikit-learn's steps, Lightning's callbacks."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from torch import nn

import midgrain as mg
from midgrain.compat.pipeline import ExplanationPipeline, ExplanationTransformer
from midgrain.models import LoadedModel
from midgrain.pictures import Preprocess
from models_for_tests import batch_for, seeded, tiny_net
from models_for_tests import one_thread as one_thread

LABELS = ["cat", "dog", "cup", "car", "sky"]


def loaded() -> LoadedModel:
    return LoadedModel(tiny_net(), Preprocess(36, 32, (0.5,) * 3, (0.25,) * 3), LABELS, "tiny")


def test_pictures_of_all_kinds(photos, tmp_path) -> None:
    explain = ExplanationPipeline(loaded(), "gradcam", layer="4")
    Image.fromarray(photos["chelsea"]).save(tmp_path / "cat.png")
    kinds = [photos["chelsea"], Image.fromarray(photos["chelsea"]), tmp_path / "cat.png", str(tmp_path / "cat.png")]
    found = explain(kinds, top_k=2)
    assert len(found) == 4
    for one in found:
        assert [each["label"] for each in one] == [each["label"] for each in found[0]]
        assert np.array_equal(one[1]["heatmap"], found[0][1]["heatmap"])
    best, second = found[0]
    assert best["score"] > second["score"]
    assert best["label"] == LABELS[best["index"]]
    assert best["overlay"].size == (32, 32)
    (single,) = explain(kinds[1], top_k=1)
    assert single["heatmap"] == pytest.approx(best["heatmap"], abs=1e-6)


def test_maps_are_midgrains(photos) -> None:
    model = loaded()
    pictures = [Image.fromarray(photos[name]) for name in ("chelsea", "coffee", "rocket")]
    x = torch.cat([model.preprocess(picture) for picture in pictures])
    found = ExplanationPipeline(model, "gradcam", layer="4")(pictures, top_k=5, batch_size=2)
    for one, sample, logits in zip(found, x, model.model(x), strict=True):
        assert [each["index"] for each in one] == logits.argsort(descending=True).tolist()
        assert sum(each["score"] for each in one) == pytest.approx(1, abs=1e-5)
        for each in one:
            expected = mg.explainer("gradcam", model.model, layer="4")(sample[None], each["index"]).heatmap[0]
            assert each["heatmap"] == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_target(photos) -> None:
    explain = ExplanationPipeline(loaded(), "vanilla")
    for target in ("cup", 2):
        (found,) = explain(photos["coffee"], target=target)
        assert (found["label"], found["index"]) == ("cup", 2)
    assert len(explain.classes(photos["coffee"], 3)) == 3


def test_bad_input(photos) -> None:
    explain = ExplanationPipeline(loaded(), "vanilla")
    with pytest.raises(ValueError, match="target: the model has no class 'tree'"):
        explain(photos["coffee"], target="tree")
    with pytest.raises(TypeError, match="images: expected paths"):
        explain(3)
    with pytest.raises(ValueError, match="images: expected bytes"):
        explain(photos["coffee"] / 255)
    with pytest.raises(ValueError, match="top_k"):
        explain(photos["coffee"], top_k=0)
    with pytest.raises(TypeError, match="model: expected a name or a LoadedModel"):
        ExplanationPipeline(tiny_net())
    with pytest.raises(ValueError, match="name: expected one of"):
        ExplanationPipeline(loaded(), "magic")


def test_a_step_of_scikit_learn() -> None:
    model, x = tiny_net(), batch_for(batch=5).numpy()
    step = ExplanationTransformer(model, "gradcam", target=3, batch_size=2, options={"layer": "4"})
    maps = step.fit_transform(x)
    assert maps.shape == (5, 24, 32)
    expected = mg.explainer("gradcam", model, layer="4")(torch.from_numpy(x), 3).heatmap.numpy()
    assert maps == pytest.approx(expected, abs=1e-6)
    again = clone(step, safe=False)
    assert again.get_params()["batch_size"] == 2
    assert np.array_equal(again.set_params(flat=True).transform(x), maps.reshape(5, -1))
    assert make_pipeline(again, PCA(2)).fit_transform(x).shape == (5, 2)


needs_lightning = pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None, reason="needs lightning (extra 'lightning')"
)


class Pictures:
    """A logger's experiment that takes pictures, as TensorBoard's."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, tuple[int, ...]]] = []

    def add_image(self, name, picture, step, dataformats) -> None:
        assert dataformats == "HWC"
        self.seen.append((name, step, picture.shape))


def trained(callback, epochs: int = 2, **options):
    """A few steps of a real trainer."""
    import lightning
    from lightning.pytorch.loggers import Logger

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = tiny_net()
            self.modes: list[bool] = []

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, number):
            self.modes.append(self.training)
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, number):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    class Recorder(Logger):
        name, version = "recorder", 0

        def __init__(self):
            super().__init__()
            self.experiment = Pictures()

        def log_metrics(self, metrics, step=None):
            pass

        def log_hyperparams(self, params):
            pass

    recorder, net = Recorder(), seeded(Net)
    labels = torch.tensor([3, 0, 4, 1, 2, 2])
    rows = list(zip(batch_for(batch=6), labels, strict=True))
    loader = torch.utils.data.DataLoader(rows, 2)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[callback],
        logger=[recorder],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(net, loader, loader)
    return recorder.experiment.seen, net


@needs_lightning
@pytest.mark.filterwarnings("ignore")  # Lightning warns of workers, of small epochs and of torch's own changes.
class TestLightning:
    def test_explanations_are_logged(self, tmp_path) -> None:
        from midgrain.compat.lightning import ExplanationCallback

        callback = ExplanationCallback("gradcam", n_samples=3, folder=tmp_path / "maps", layer="net.4")
        seen, net = trained(callback)
        assert [name for name, _, _ in seen] == [f"explanations/{i}" for i in range(3)] * 2
        assert {shape for _, _, shape in seen} == {(24, 32, 3)}
        assert sorted({step for _, step, _ in seen}) == [3, 6]  # Nothing in the sanity check.
        assert callback.explanations.target.tolist() == [3, 0, 4]
        files = sorted(path.name for path in (tmp_path / "maps").iterdir())
        assert files == [f"epoch-{epoch:04d}-sample-{i}.png" for epoch in range(2) for i in range(3)]
        assert all(net.modes)  # Training goes on in training mode.
        expected = mg.explainer("gradcam", net, layer="net.4")(batch_for(batch=6)[:3], [3, 0, 4]).heatmap
        assert torch.allclose(callback.explanations.heatmap, expected, atol=1e-6)

    def test_choices(self) -> None:
        from midgrain.compat.lightning import ExplanationCallback

        callback = ExplanationCallback(
            "swag-i", n_samples=2, every_n_epochs=2, target="predicted", model=lambda module: module.net, n_segments=12
        )
        seen, net = trained(callback, epochs=3, num_sanity_val_steps=0)
        assert len(seen) == 4
        with torch.no_grad():
            assert callback.explanations.target.tolist() == net(batch_for(batch=6)[:2]).argmax(1).tolist()
        with pytest.raises(ValueError, match="target: expected 'label', 'predicted' or a class"):
            ExplanationCallback(target="best")
        with pytest.raises(ValueError, match="n_samples"):
            ExplanationCallback(n_samples=0)

    def test_training_is_the_same_with_and_without(self) -> None:
        from lightning import Callback

        from midgrain.compat.lightning import ExplanationCallback

        _, plain = trained(Callback(), epochs=1)
        _, watched = trained(ExplanationCallback("lime-i", n_samples=1, n_segments=4), epochs=1)
        for one, other in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
            assert torch.equal(one, other)
