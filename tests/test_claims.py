"""What groups hold of a cluster's bundles, from their start to their end or the cluster's."""

import pytest

from planner.findings import PlanError
from planner.gpu_ledger import BundleShare, GpuLedger, held_amounts
from planner.virtual_cluster import plan_cluster
from runtime import RayWorkerBuilder, RayWorkerGroup
from runtime.claim import Claims
from runtime.testing import InProcessCluster


def _claims(**more: object) -> Claims:
    return Claims(plan_cluster(bundle_ct_per_node_list=[1], **more))


def test_bundles_that_were_given_back_are_held_by_nobody() -> None:
    """Whoever held them gives back nothing that the next one holds."""
    claims, whole = _claims(), [BundleShare(0, 0, 10_000)]
    old = claims.claim("W", whole)
    with pytest.raises(PlanError, match="'W' holds 1 of the GPU of bundle 0"):
        claims.claim("V", whole)
    claims.clear()
    new = claims.claim("W", whole)
    claims.release(old)
    assert claims.workers_beside("") == {(0, 0): 1}
    claims.release(new)
    claims.release(new)
    assert claims.workers_beside("") == {}


def test_the_rest_of_a_bundle_is_counted_as_the_cluster_was_made() -> None:
    """One CPU for each colocated group, or what was asked for; and custom resources."""
    two = [BundleShare(0, 0, 0, held_amounts([("CPU", 2)]))]
    for claims, room in (
        (_claims(max_colocated_worker_groups=2), "2"),
        (_claims(max_colocated_worker_groups=2, bundle_resources={"CPU": 3.5}), "3.5"),
    ):
        claims.claim("policy", two)
        with pytest.raises(PlanError, match=f"of the {room} of bundle 0 .* 'policy' holds 2 alr"):
            claims.claim("rollout", two)
    roomy = _claims(max_colocated_worker_groups=2, bundle_resources={"CPU": 4, "nic": 1})
    nic = [BundleShare(0, 0, 0, held_amounts([("CPU", 2), ("nic", 1)]))]
    roomy.claim("policy", two)
    kept = roomy.claim("rollout", nic)
    roomy.release(kept)
    roomy.claim("rollout", nic)


def test_two_groups_that_ask_for_more_than_a_bundle_has_are_told_at_once() -> None:
    """Before anything is started; the second would wait for the first until its deadline."""
    builder = RayWorkerBuilder("tests.ending_workers.TakesTwoCpus")
    with InProcessCluster([2], max_colocated_worker_groups=2, use_gpus=False) as cluster:
        with RayWorkerGroup(cluster, builder, name_prefix="policy"):
            with pytest.raises(PlanError, match="each worker asks for 2 of CPU, and of the 2 of"):
                RayWorkerGroup(cluster, builder, name_prefix="rollout")
            assert all(name.startswith("policy") for name in cluster.live)
        with RayWorkerGroup(cluster, builder, name_prefix="rollout") as group:
            assert group.world_size == 2


def test_a_cluster_that_was_shut_down_holds_no_claims() -> None:
    """On the in-process backend as on Ray."""
    with InProcessCluster([2]) as cluster:
        group = RayWorkerGroup(cluster, RayWorkerBuilder("tests.fault_workers.Worker"))
        assert cluster.workers_beside("") == {(0, 0): 1, (0, 1): 1}
        cluster.shutdown()
        assert cluster.workers_beside("") == {}
        assert group.end().ended == (0, 1)


def test_a_group_that_is_released_while_another_is_stays_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector may end one in the middle of a release, in the same thread."""
    claims, half = _claims(max_colocated_worker_groups=2), [BundleShare(0, 0, 5_000)]
    first, *others = [claims.claim(name, half) for name in ("V", "W")]
    real = GpuLedger.without_group

    def collects(ledger: GpuLedger, key: str) -> GpuLedger:
        if others:
            claims.release(others.pop())
        return real(ledger, key)

    monkeypatch.setattr(GpuLedger, "without_group", collects)
    claims.release(first)
    assert claims.workers_beside("") == {}
