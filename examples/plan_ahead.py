"""Where would the ranks land? A plan for a cluster that nobody here owns, without Ray or a GPU."""

import argparse
from collections.abc import Sequence

import numpy as np

from planner import GroupArguments, NamedSharding, plan_cluster, predict_launch
from planner.shapes import h100_nodes
from planner.show import launch_table

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Plan a policy group over nodes of eight H100s and print where each rank lands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=2, help="how many nodes (default 2)")
    nodes = parser.parse_args(arguments).nodes
    axes = NamedSharding(
        np.arange(nodes * 8).reshape(nodes, 8), ["data_parallel", "tensor_parallel"]
    )
    plan = predict_launch(
        plan_cluster(bundle_ct_per_node_list=[8] * nodes),
        GroupArguments(worker_class="my.Trainer", name_prefix="policy", mesh=axes),
        h100_nodes(nodes),
        unified=True,
    )
    print(launch_table(plan))


if __name__ == "__main__":
    main()
