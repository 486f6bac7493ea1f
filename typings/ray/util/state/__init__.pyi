"""These ask the dashboard's server: they fail on a cluster started without one."""

from ray.util.state.api import get_actor as get_actor
from ray.util.state.api import list_actors as list_actors
from ray.util.state.api import list_placement_groups as list_placement_groups
