"""A ``NamedSharding`` in a process that cannot import rankplan."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from planner.mesh import NamedSharding
from runtime import carrying
from runtime.carrying import carry_named_sharding

AXES = NamedSharding([[2, 3], [0, 1]], ["data_parallel", "tensor_parallel"])

ELSEWHERE = """
import sys


class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(name, name=name)


sys.meta_path.insert(0, Refusing())
sys.path.insert(0, {folder!r})
from ray import cloudpickle

received = sys.stdin.buffer
first, second = (cloudpickle.load(received) for _ in range(2))
assert first == second and type(first) is type(second)
assert first.get_worker_coords(0) == {{"data_parallel": 1, "tensor_parallel": 0}}
try:
    first.get_axis_index("nothing")
except ValueError as error:
    trouble = error
sys.stdout.buffer.write(cloudpickle.dumps((first, trouble)))
"""


def _sent() -> bytes:
    """As Ray's backend sends it."""
    carry_named_sharding()
    cloudpickle.register_pickle_by_value(carrying)
    return cloudpickle.dumps(AXES) * 2


def elsewhere(
    folder: Path, missing: tuple[str, ...] = ("planner", "runtime")
) -> "subprocess.CompletedProcess[bytes]":
    """What a process answers that lacks some packages and is sent the axes."""
    return subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE.format(missing=missing, folder=str(folder))],
        input=_sent(),
        capture_output=True,
        check=False,
    )


def test_axes_travel_there_and_back_again(tmp_path: Path) -> None:
    """As does the error that they raise; here both are of rankplan's own types again."""
    done = elsewhere(tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    axes, error = cloudpickle.loads(done.stdout)
    assert type(axes) is NamedSharding
    assert axes == AXES
    with pytest.raises(type(error), match="unknown axis 'nothing'"):
        AXES.get_axis_index("nothing")


def test_another_package_of_that_name_stays(tmp_path: Path) -> None:
    """A worker's project may have a planner of its own."""
    (tmp_path / "planner.py").write_text("theirs = True\n", encoding="utf-8")
    done = elsewhere(tmp_path, ("runtime",))
    assert done.returncode == 0, done.stderr.decode()
    assert cloudpickle.loads(done.stdout)[0] == AXES


def test_what_is_missing_there_is_named(tmp_path: Path) -> None:
    """Arrays need numpy."""
    done = elsewhere(tmp_path, ("planner", "runtime", "numpy"))
    assert done.returncode != 0
    assert "which lacks 'numpy': install 'numpy' there" in done.stderr.decode()


def test_a_copy_is_the_same_here() -> None:
    """By every way of copying, in a process that has the runtime too."""
    carry_named_sharding()
    pickled = pickle.loads(pickle.dumps(AXES))  # noqa: S301
    for again in (pickled, copy.copy(AXES), copy.deepcopy(AXES)):
        assert type(again) is NamedSharding
        assert again == AXES
        assert hash(again) == hash(AXES)
