"""Plans for readers: each as plain text, and as a view for a rich console."""

from planner.show.difference import (
    difference_table,
    difference_view,
    preflight_table,
    preflight_view,
)
from planner.show.dispatch import dispatch_table, dispatch_view
from planner.show.launch import environment_table, environment_view, launch_table, launch_view
from planner.show.mesh import mesh_picture, mesh_view

__all__ = [
    "difference_table",
    "difference_view",
    "dispatch_table",
    "dispatch_view",
    "environment_table",
    "environment_view",
    "launch_table",
    "launch_view",
    "mesh_picture",
    "mesh_view",
    "preflight_table",
    "preflight_view",
]
