"""What a worker's process does for its links, as far as it can be seen without others."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray._private import worker

from runtime import linking
from runtime.direct_on_ray import DIRECT_ON_RAY


class _Closed:
    """A group of processes whose other members are gone."""

    def _fail(self, tensors: list[Any], rank: int, tag: int) -> Any:
        raise RuntimeError(
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:550] Connection closed by peer "
            "[10.0.0.1]:54320"
        )

    send = recv = _fail


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("recv", {"src_rank": 0}, "nothing came from generator rank 0"),
        ("send", {"dst_rank": 1}, "sending to trainer rank 0 failed"),
    ],
)
def test_a_failed_transfer_says_what_to_do(
    method: str, options: dict[str, int], expected: str
) -> None:
    """With the other end of it, and without a place in gloo's source."""
    members = ["generator rank 0", "trainer rank 0"]
    kind: Any = linking._group_class("pair-1", _Closed(), members)

    with pytest.raises(RuntimeError) as raised:
        getattr(kind, method)(None, [], SimpleNamespace(**options))

    assert str(cloudpickle.loads(cloudpickle.dumps(raised.value))) == (
        f"link 'pair-1': {expected}: Connection closed by peer [10.0.0.1]:54320; "
        "end the link, recover the groups, and link them again"
    )


def test_this_process_keeps_direct_objects_before_threads_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray would make it when it is first used, by two threads at once it may be."""
    monkeypatch.setattr(worker.global_worker, "_rdt_manager", None)

    DIRECT_ON_RAY.note("pair-1", "gloo", [])
    DIRECT_ON_RAY.forget("pair-1")

    manager: Any = worker.global_worker._rdt_manager
    assert manager._rdt_store is not None
