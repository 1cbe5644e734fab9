"""The layers that class activation maps look at: found in a long list of networks, or named by the user.

The networks have random weights; of most families the smallest is here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import midgrain as mg
from layers_for_tests import Custom, found
from midgrain import driver
from midgrain.cams import make_cam
from models_for_tests import batch_for, seeded, tiny_net
from models_for_tests import one_thread as one_thread

# Name, size of the input, layer, channels, size of its maps, size of its maps for another size of the input (see
# OTHER; None where the network takes only its own).
QUICK: list[tuple[Any, ...]] = [
    ("torchvision:densenet121", (224, 224), "features", 1024, (7, 7), (6, 8)),
    ("torchvision:inception_v3", (299, 299), "Mixed_7c", 2048, (8, 8), (4, 6)),
    ("torchvision:mobilenet_v3_small", (224, 224), "features", 576, (7, 7), (6, 8)),
    ("torchvision:resnet50", (224, 224), "layer4", 2048, (7, 7), (6, 8)),
    ("torchvision:shufflenet_v2_x0_5", (224, 224), "conv5", 1024, (7, 7), (6, 8)),
    ("torchvision:squeezenet1_1", (224, 224), "features", 512, (13, 13), (11, 15)),
    ("torchvision:swin_t", (224, 224), "permute", 768, (7, 7), (6, 8)),
    ("torchvision:vgg16", (224, 224), "features.29", 512, (14, 14), (12, 16)),
    ("torchvision:vit_b_32", (224, 224), "encoder.layers.encoder_layer_11.ln_1", 768, (7, 7), None),
    ("torchvision:r2plus1d_18", (16, 112, 112), "layer4", 512, (2, 7, 7), None),
    ("timm:cait_xxs24_224", (224, 224), "blocks_token_only.1.norm1", 192, (14, 14), None),
    ("timm:test_convnext", (160, 160), "stages", 64, (5, 5), (6, 8)),
    ("timm:deit_tiny_patch16_224", (224, 224), "blocks.11.norm1", 192, (14, 14), None),
    ("timm:levit_128", (224, 224), "stages", 384, (4, 4), None),
    ("timm:test_mambaout", (160, 160), "stages", 64, (5, 5), (6, 8)),
    ("timm:test_coatnet", (160, 160), "norm", 128, (5, 5), None),
    ("timm:test_nfnet", (160, 160), "final_act", 192, (5, 5), (6, 8)),
    ("timm:swin_tiny_patch4_window7_224", (224, 224), "norm", 768, (7, 7), None),
    ("timm:test_vit", (160, 160), "blocks.5.norm1", 64, (10, 10), (12, 16)),
    ("timm:xcit_nano_12_p8_224", (224, 224), "cls_attn_blocks.1.norm1", 128, (28, 28), (24, 32)),
]


SLOW: list[tuple[Any, ...]] = [
    ("torchvision:alexnet", (224, 224), "features.11", 256, (13, 13), (11, 15)),
    ("torchvision:convnext_tiny", (224, 224), "features", 768, (7, 7), (6, 8)),
    ("torchvision:efficientnet_b0", (224, 224), "features", 1280, (7, 7), (6, 8)),
    ("torchvision:efficientnet_v2_s", (224, 224), "features", 1280, (7, 7), (6, 8)),
    ("torchvision:googlenet", (224, 224), "inception5b", 1024, (7, 7), (6, 8)),
    ("torchvision:maxvit_t", (224, 224), "blocks.3", 512, (7, 7), None),
    ("torchvision:mnasnet0_5", (224, 224), "layers", 1280, (7, 7), (6, 8)),
    ("torchvision:mobilenet_v2", (224, 224), "features", 1280, (7, 7), (6, 8)),
    ("torchvision:mobilenet_v3_large", (224, 224), "features", 960, (7, 7), (6, 8)),
    ("torchvision:regnet_x_400mf", (224, 224), "trunk_output", 400, (7, 7), (6, 8)),
    ("torchvision:regnet_y_400mf", (224, 224), "trunk_output", 440, (7, 7), (6, 8)),
    ("torchvision:resnet18", (224, 224), "layer4", 512, (7, 7), (6, 8)),
    ("torchvision:resnext50_32x4d", (224, 224), "layer4", 2048, (7, 7), (6, 8)),
    ("torchvision:squeezenet1_0", (224, 224), "features", 512, (13, 13), (11, 15)),
    ("torchvision:swin_v2_t", (224, 224), "permute", 768, (7, 7), (6, 8)),
    ("torchvision:vgg11_bn", (224, 224), "features.27", 512, (14, 14), (12, 16)),
    ("torchvision:vit_b_16", (224, 224), "encoder.layers.encoder_layer_11.ln_1", 768, (14, 14), None),
    ("torchvision:wide_resnet50_2", (224, 224), "layer4", 2048, (7, 7), (6, 8)),
    ("torchvision:r3d_18", (16, 112, 112), "layer4", 512, (2, 7, 7), (2, 6, 8)),
    ("torchvision:mc3_18", (16, 112, 112), "layer4", 512, (16, 7, 7), (16, 6, 8)),
    ("torchvision:s3d", (16, 224, 224), "features", 1024, (2, 7, 7), (2, 7, 9)),
    ("torchvision:mvit_v1_b", (16, 224, 224), "blocks.15.norm1", 768, (8, 7, 7), None),
    ("torchvision:mvit_v2_s", (16, 224, 224), "blocks.15.norm1", 768, (8, 7, 7), None),
    ("torchvision:swin3d_t", (16, 112, 112), "norm", 768, (8, 4, 4), (8, 3, 4)),
    ("timm:beit_base_patch16_224", (224, 224), "blocks.11", 768, (14, 14), None),
    ("timm:eca_botnext26ts_256", (256, 256), "stages", 2048, (8, 8), None),
    ("timm:test_byobnet", (160, 160), "stages", 256, (5, 5), (6, 8)),
    ("timm:coat_tiny", (224, 224), "parallel_blocks.5.norm14", 152, (7, 7), None),
    ("timm:convit_tiny", (224, 224), "blocks.11.norm1", 192, (14, 14), None),
    ("timm:convmixer_768_32", (224, 224), "blocks", 768, (32, 32), (27, 36)),
    ("timm:cpubone_nano", (224, 224), "head.in_conv", 1536, (7, 7), (6, 8)),
    ("timm:crossvit_tiny_240", (240, 240), "blocks.2.fusion.0.norm1", 192, (14, 14), (12, 16)),
    ("timm:csatv2", (512, 512), "stages", 386, (8, 8), (3, 4)),
    ("timm:cs3darknet_focus_s", (256, 256), "stages", 512, (8, 8), (6, 8)),
    ("timm:cspnext_tiny", (224, 224), "stages", 384, (7, 7), (6, 8)),
    ("timm:davit_tiny", (224, 224), "stages", 768, (7, 7), (6, 8)),
    ("timm:densenet121", (224, 224), "features", 1024, (7, 7), (6, 8)),
    ("timm:dla34", (224, 224), "level5", 512, (7, 7), (6, 8)),
    ("timm:dpn48b", (224, 224), "features", 832, (7, 7), (6, 8)),
    ("timm:edgenext_xx_small", (256, 256), "stages", 168, (8, 8), (6, 8)),
    ("timm:efficientformer_l1", (224, 224), "norm", 448, (7, 7), None),
    ("timm:efficientformerv2_s0", (224, 224), "norm", 176, (7, 7), None),
    ("timm:test_efficientnet", (160, 160), "bn2", 256, (5, 5), (6, 8)),
    ("timm:efficientvim_m1", (224, 224), "norm.3", 320, (4, 4), (3, 4)),
    ("timm:efficientvit_b0", (224, 224), "head.in_conv", 1024, (7, 7), (6, 8)),
    ("timm:efficientvit_m0", (224, 224), "stages", 192, (4, 4), (3, 4)),
    ("timm:vit_tiny_patch16_dinov3_qkvb", (256, 256), "blocks.11", 192, (16, 16), (12, 16)),
    ("timm:fasternet_t0", (224, 224), "stages", 320, (7, 7), (6, 8)),
    ("timm:fastvit_t8", (256, 256), "final_conv", 768, (8, 8), (6, 8)),
    ("timm:focalnet_tiny_srf", (224, 224), "norm", 768, (7, 7), (6, 8)),
    ("timm:gcvit_xxtiny", (224, 224), "stages", 512, (7, 7), None),
    ("timm:ghostnet_050", (224, 224), "blocks", 480, (7, 7), (6, 8)),
    ("timm:hardcorenas_b", (224, 224), "blocks", 960, (7, 7), (6, 8)),
    ("timm:hgnetv2_b0", (224, 224), "stages", 1024, (7, 7), (6, 8)),
    ("timm:hiera_tiny_224", (224, 224), "blocks.11", 768, (7, 7), None),
    ("timm:sam2_hiera_tiny", (224, 224), "blocks.11", 768, (7, 7), (6, 8)),
    ("timm:hrnet_w18_small", (224, 224), "final_layer", 2048, (7, 7), (6, 8)),
    ("timm:iformer_t", (224, 224), "stages", 256, (7, 7), (6, 8)),
    ("timm:inception_next_atto", (224, 224), "stages", 320, (7, 7), (6, 8)),
    ("timm:inception_resnet_v2", (299, 299), "conv2d_7b", 1536, (8, 8), (4, 6)),
    ("timm:inception_v3", (299, 299), "Mixed_7c", 2048, (8, 8), (4, 6)),
    ("timm:inception_v4", (299, 299), "features", 1536, (8, 8), (4, 6)),
    ("timm:lcnetv2_small", (224, 224), "stages", 768, (7, 7), (6, 8)),
    ("timm:lowformer_b0", (224, 224), "in_conv", 1536, (7, 7), (6, 8)),
    ("timm:caformer_s18", (224, 224), "stages", 512, (7, 7), (6, 8)),
    ("timm:gmlp_ti16_224", (224, 224), "norm", 128, (14, 14), None),
    ("timm:mobilenetv3_small_050", (224, 224), "blocks", 288, (7, 7), (6, 8)),
    ("timm:mobilenetv5_base", (256, 256), "msfa", 2048, (16, 16), None),
    ("timm:mobilevit_xxs", (256, 256), "final_conv", 320, (8, 8), (6, 8)),
    ("timm:mvitv2_tiny", (224, 224), "norm", 768, (7, 7), None),
    ("timm:naflexvit_base_patch16_gap", (384, 384), "blocks.11", 768, (24, 24), (12, 16)),
    ("timm:nasnetalarge", (331, 331), "act", 4032, (11, 11), (6, 8)),
    ("timm:nest_tiny", (224, 224), "norm", 384, (14, 14), None),
    ("timm:nextvit_small", (224, 224), "norm", 1024, (7, 7), (6, 8)),
    ("timm:pit_ti_224", (224, 224), "transformers.2.blocks.3.norm1", 256, (7, 7), None),
    ("timm:pnasnet5large", (331, 331), "act", 4320, (11, 11), (6, 8)),
    ("timm:pvt_v2_b0", (224, 224), "stages", 256, (7, 7), (6, 8)),
    ("timm:qwen3_vit_88m", (224, 224), "encoder", 768, (14, 14), (12, 16)),
    ("timm:rdnet_tiny", (224, 224), "dense_stages", 1040, (7, 7), (6, 8)),
    ("timm:regnetx_004_tv", (224, 224), "s4", 400, (7, 7), (6, 8)),
    ("timm:repghostnet_050", (224, 224), "blocks", 480, (7, 7), (6, 8)),
    ("timm:repvit_m1", (224, 224), "stages", 384, (7, 7), (6, 8)),
    ("timm:res2net50_26w_4s", (224, 224), "layer4", 2048, (7, 7), (6, 8)),
    ("timm:resnest26d", (224, 224), "layer4", 2048, (7, 7), (6, 8)),
    ("timm:test_resnet", (160, 160), "layer4", 96, (5, 5), (6, 8)),
    ("timm:resnetv2_18", (224, 224), "norm", 512, (7, 7), (6, 8)),
    ("timm:rexnet_100", (224, 224), "features", 1280, (7, 7), (6, 8)),
    ("timm:selecsls42", (224, 224), "head", 1280, (4, 4), (3, 4)),
    ("timm:legacy_seresnet18", (224, 224), "layer4", 512, (7, 7), (6, 8)),
    ("timm:sequencer2d_s", (224, 224), "norm", 384, (16, 16), (13, 18)),
    ("timm:shvit_s1", (224, 224), "stages", 320, (4, 4), (3, 4)),
    ("timm:skresnet18", (224, 224), "layer4", 512, (7, 7), (6, 8)),
    ("timm:starnet_s050", (224, 224), "norm", 128, (7, 7), (6, 8)),
    ("timm:swiftformer_xs", (224, 224), "norm", 220, (7, 7), (6, 8)),
    ("timm:swinv2_tiny_window8_256", (256, 256), "norm", 768, (8, 8), None),
    ("timm:swinv2_cr_tiny_224", (224, 224), "stages", 768, (7, 7), None),
    ("timm:tiny_vit_5m_224", (224, 224), "stages", 320, (7, 7), (6, 8)),
    ("timm:tnt_s_legacy_patch16_224", (224, 224), "blocks.11.norm_out", 384, (14, 14), None),
    ("timm:tresnet_m", (224, 224), "body", 2048, (7, 7), (6, 8)),
    ("timm:twins_svt_small", (224, 224), "norm", 512, (7, 7), (6, 8)),
    ("timm:vgg11", (224, 224), "features.19", 512, (14, 14), (12, 16)),
    ("timm:visformer_tiny", (224, 224), "norm", 384, (7, 7), None),
    ("timm:vit_tiny_r_s16_p8_224", (224, 224), "blocks.11.norm1", 192, (7, 7), None),
    ("timm:test_vit_relpos", (160, 160), "blocks.8", 96, (10, 10), None),
    ("timm:samvit_base_patch16_224", (224, 224), "neck", 768, (14, 14), (12, 16)),
    ("timm:vitamin_small_224", (224, 224), "blocks", 384, (14, 14), None),
    ("timm:volo_d1_224", (224, 224), "norm", 384, (14, 14), None),
    ("timm:vovnet39a", (224, 224), "stages", 1024, (7, 7), (6, 8)),
    ("timm:legacy_xception", (299, 299), "act4", 2048, (10, 10), (6, 8)),
    ("timm:xception41p", (299, 299), "act", 2048, (10, 10), (6, 8)),
]


OTHER = {2: (192, 256), 3: (16, 96, 128)}


# Built without what takes long and changes nothing here.
_OPTIONS: dict[str, dict[str, Any]] = {name: {"init_weights": False} for name in ("inception_v3", "googlenet", "vgg16")}


def built(spec: str) -> nn.Module:
    package, _, name = spec.partition(":")
    if package == "timm":
        return seeded(lambda: pytest.importorskip("timm").create_model(name)).eval()
    models = pytest.importorskip("torchvision.models")
    return seeded(lambda: models.get_model(name, weights=None, **_OPTIONS.get(name, {}))).eval()


@pytest.mark.parametrize(
    ("spec", "size", "layer", "channels", "maps", "other"),
    [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)],
    ids=[row[0] for row in (*QUICK, *SLOW)],
)
def test_the_last_spatial_layer(
    spec: str, size: tuple[int, ...], layer: str, channels: int, maps: tuple[int, ...], other: Any
) -> None:
    model = built(spec)
    assert found(model, torch.randn(1, 3, *size)) == (layer, (channels, *maps))
    if other is not None:
        wider = (16, 224, 288) if spec.endswith("s3d") else OTHER[len(size)]
        assert found(model, torch.randn(1, 3, *wider)) == (layer, (channels, *other))


def test_a_search_costs_two_passes_and_one_backward_as_far_as_the_layer() -> None:
    """The trace, and the pass that looks for a gradient; later calls search no more."""
    model, x = tiny_net(), batch_for()
    passes: list[Any] = []
    model.register_forward_hook(lambda module, args, output: passes.append(args[0].shape[0]))
    cam = make_cam("gradcam")
    with driver.preserved(model, x):
        cam.sites(model, x, None)
        assert passes == [1, 1]
        cam.score(model, x, None)
        cam.score(model, x, 3)
        assert passes == [1, 1, 2, 2]
        cam.score(model, batch_for(size=(32, 32)), None)
        assert passes == [1, 1, 2, 2, 1, 1, 2]


# --- layers of the user's ---------------------------------------------------------------------------------------


def test_a_layer_by_name_by_itself_and_several() -> None:
    model, x = tiny_net(), batch_for()
    by_name = mg.explainer("gradcam", model, layer="3")(x)
    assert torch.equal(mg.explainer("gradcam", model, layer=model[3])(x).heatmap, by_name.heatmap)
    assert torch.equal(by_name.cam, mg.explainer("gradcam", model, layer=["3"])(x).cam)
    singles = [mg.explainer("gradcam", model, layer=layer)(x).heatmap for layer in ("1", "3")]
    rescaled = [(one - one.amin((1, 2), True)) / (one.amax((1, 2), True) - one.amin((1, 2), True)) for one in singles]
    fused = mg.explainer("gradcam", model, layer=["1", model[3]])(x)
    assert torch.allclose(fused.heatmap, (rescaled[0] + rescaled[1]) / 2, atol=1e-6)
    assert fused.cam is None


def test_a_reshape_of_the_users_own() -> None:
    flat = Custom(
        lambda m, x: m.head(m.norm(m.conv(x).flatten(2).flip(2).transpose(1, 2)).mean(1)),
        conv=nn.Conv2d(3, 8, 3, 2, 1),
        norm=nn.LayerNorm(8),
        head=nn.Linear(8, 5),
    )
    x = batch_for()
    explainer = mg.explainer(
        "hirescam", flat, layer="norm", reshape=lambda t: t.transpose(1, 2).flip(2).reshape(-1, 8, 12, 16)
    )
    turned = mg.explainer("hirescam", flat, layer="norm")(x)  # Read in raster order, here from the end.
    assert torch.allclose(explainer(x).cam, turned.cam.flip(1, 2))


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "not spatial": ({"layer": "8"}, ValueError, r"layer: the output of 8 is not spatial .* it returns \[1, 5\]"),
    "unknown": ({"layer": "33"}, ValueError, "layer: the model has no module '33'; did you mean 3"),
    "another network's": ({"layer": nn.ReLU()}, ValueError, "layer: this ReLU is not part of the model"),
    "a number": ({"layer": 3}, TypeError, "layer: expected None, a module, its dotted name or several, got int"),
    "numbers": ({"layer": [3]}, TypeError, "layer: expected None, a module, its dotted name or several, got list"),
    "none": ({"layer": []}, ValueError, "layer: expected at least one layer"),
    "never run": ({"layer": "9"}, ValueError, "layer: the network has 9, but does not call it for this input"),
    "reshape alone": ({"reshape": len}, ValueError, "reshape: it goes with a layer; pass layer= too"),
    "reshape no callable": ({"layer": "3", "reshape": 3}, TypeError, "reshape: expected a callable, got int"),
    "reshape gives none": (
        {"layer": "3", "reshape": lambda t: None},
        TypeError,
        "reshape: expected it to return a tensor, got NoneType",
    ),
    "reshape gives tokens": (
        {"layer": "3", "reshape": lambda t: t.flatten(2)},
        ValueError,
        r"reshape: expected it to return \[B, K, h, w\] with 2 sample\(s\), got \[2, 8, 192\]",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_layers(what: str) -> None:
    options, error, message = BAD[what]
    model = tiny_net()
    model.forward = nn.Sequential(*model).forward
    model.add_module("9", nn.ReLU())
    with pytest.raises(error, match=message):
        mg.explainer("gradcam", model, **options)(batch_for())
    assert not any(module._forward_hooks for module in model.modules())


def test_networks_without_a_spatial_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 32, 5))
    with pytest.raises(ValueError, match="layer: no layer of the network has a spatial output"):
        mg.explainer("gradcam", model)(batch_for())
    with pytest.raises(TypeError, match="whose layers can be watched, got function"):
        mg.explainer("gradcam", lambda x: model(x))(batch_for())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program() -> None:
    with pytest.raises(TypeError, match="a TorchScript program hides its layers"):
        mg.explainer("gradcam", torch.jit.trace(tiny_net(), batch_for()))(batch_for())


@pytest.mark.parametrize("where", ["reshape", "target", "forward"])
def test_the_network_is_left_alone_after_exceptions(where: str) -> None:
    def fails(*_: Any) -> Any:
        raise KeyError("stop")

    model, x = tiny_net().train(), batch_for()
    options = {"layer": "3", "reshape": fails} if where == "reshape" else {}
    if where == "forward":
        model[6].register_forward_pre_hook(fails)
    explainer = mg.explainer("gradcam", model, **options)
    with pytest.raises(KeyError, match="stop"):
        explainer(x, fails if where == "target" else None)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert sum(len(module._forward_pre_hooks) for module in model.modules()) == (where == "forward")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()
