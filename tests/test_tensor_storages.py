"""Tensors of types that torch can't read again by itself, pickled as Ray does it."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ray import cloudpickle
from tensordict import TensorDict

from runtime.tensor_storages import carry_storages

TYPES = ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"]
Maker = Callable[[Any], Any]
HOLDERS: dict[str, tuple[Maker, Maker]] = {
    "tensor": (lambda tensor: tensor, lambda got: got),
    "parameter": (lambda tensor: torch.nn.Parameter(tensor, requires_grad=False), lambda got: got),
    "fields": (lambda tensor: {"x": [tensor]}, lambda got: got["x"][0]),
    "tensordict": (
        lambda tensor: TensorDict({"x": tensor}, batch_size=[len(tensor)]),
        lambda got: got["x"],
    ),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_they_are_read_as_they_were(
    name: str, holder: str, dumps: Callable[[object], bytes]
) -> None:
    """Whatever holds them; Ray pickles some tensors by Python's own pickle."""
    carry_storages()
    tensor = torch.arange(6.0).to(getattr(torch, name))
    put, take = HOLDERS[holder]

    got = take(cloudpickle.loads(dumps(put(tensor))))

    assert got.dtype is tensor.dtype
    assert got.tolist() == tensor.tolist()


def test_views_share_their_storage_as_ever() -> None:
    """It is written once."""
    carry_storages()
    tensor = torch.arange(6.0).to(torch.float8_e4m3fn)

    whole, part = cloudpickle.loads(cloudpickle.dumps((tensor, tensor[2:])))

    assert whole[2:].data_ptr() == part.data_ptr()
