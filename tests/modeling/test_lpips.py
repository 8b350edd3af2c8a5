import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modeling.lpips import Lpips, lpips_head_file, read_weights


def _oracle() -> torch.nn.Module:
    """The `lpips` package's own network, with a random VGG16 and its real heads."""
    package = pytest.importorskip("lpips", reason="the lpips package is the oracle")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's deprecated arguments, used by lpips
        network: torch.nn.Module = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    return network


def _torchvision_vgg16(oracle: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The oracle's backbone under torchvision's names: net.sliceK.I.x becomes features.I.x."""
    return {
        f"features.{name.split('.', 2)[2]}": tensor.clone()
        for name, tensor in oracle.state_dict().items()
        if name.startswith("net.slice")
    }


def _pictures(seed: int, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, size, size, generator=generator) * 2 - 1


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lpips, torch.nn.Module]:
    oracle = _oracle()
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file(_torchvision_vgg16(oracle) | {"classifier.0.weight": torch.zeros(1)}, path)
    return Lpips.from_files(path), oracle


def test_distance_equals_the_lpips_package(networks: tuple[Lpips, torch.nn.Module]) -> None:
    ours, oracle = networks
    first, second = _pictures(1), _pictures(2)
    with torch.no_grad():
        expected_N = oracle(first, second).flatten()
    assert float(expected_N.min()) > 1e-4
    torch.testing.assert_close(ours(first, second), expected_N, rtol=1e-5, atol=1e-8)


def test_gradient_equals_that_of_the_lpips_package(
    networks: tuple[Lpips, torch.nn.Module],
) -> None:
    gradients = []
    for network in networks:
        first = _pictures(1).requires_grad_()
        network(first, _pictures(2)).sum().backward()
        assert first.grad is not None
        gradients.append(first.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-8)


def test_a_picture_is_at_distance_zero_of_itself(networks: tuple[Lpips, torch.nn.Module]) -> None:
    picture = _pictures(1).requires_grad_()
    distance_N = networks[0](picture, _pictures(1))
    assert distance_N.tolist() == [0, 0]
    distance_N.sum().backward()
    assert picture.grad is not None
    assert bool(picture.grad.isfinite().all())


def test_a_dead_feature_map_has_a_finite_gradient() -> None:
    ours = Lpips()  # the bias of every layer can be negative: make all maps zero
    for parameter in ours.backbone.parameters():
        parameter.zero_()
    picture = _pictures(1).requires_grad_()
    ours(picture, _pictures(2)).sum().backward()
    assert picture.grad is not None
    assert bool(picture.grad.isfinite().all())


def test_nothing_of_lpips_is_trainable() -> None:
    assert [name for name, p in Lpips().named_parameters() if p.requires_grad] == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        Lpips.from_files(tmp_path / "nowhere.pth")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('ran')",))

    path = tmp_path / "evil.pth"
    torch.save({"features.0.weight": Evil()}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        read_weights(path)


def test_a_misshapen_tensor_is_named() -> None:
    tensors = dict(Lpips().backbone.state_dict())
    tensors["features.0.weight"] = torch.zeros(1, 3, 3, 3)
    with pytest.raises(RuntimeError, match=r"features\.0\.weight"):
        Lpips().backbone.load_torchvision(tensors)


def test_the_heads_are_the_packages_and_not_negative() -> None:
    pytest.importorskip("lpips", reason="the heads come from the lpips package")
    heads = read_weights(lpips_head_file())
    assert len(heads) == 5
    assert min(float(head.min()) for head in heads.values()) >= 0
