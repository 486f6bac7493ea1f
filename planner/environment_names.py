"""Variables by name: which say a rank, which a launcher, Ray or an interpreter sets, which matter.

Each table holds names and patterns (``*`` and ``?``).
"""

__all__ = [
    "BEFORE_PYTHON",
    "INTERPRETER_VARIABLES",
    "LAUNCHERS",
    "NEEDED",
    "NEVER_INHERITED",
    "RANK_CONTRACT",
    "RAYS_OWN",
]

RANK_CONTRACT: tuple[str, ...] = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "NODE_RANK",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANKPLAN_NODE_LOCAL_RANK",
    "RANKPLAN_PORTS",
)
"""The variables that say which rank a process is; only ``force_env_vars`` may override them."""

LAUNCHERS: tuple[str, ...] = (
    # Under torchrun rank 0 would not host the store, and all would hang.
    "TORCHELASTIC_*",
    "SLURM_*",
    "PMI_*",
    "PMIX_*",
    "OMPI_*",
    "MPI_LOCAL*",
    "PALS_*",
)
"""What launchers tell their own processes: libraries would take a worker's rank from there."""

RAYS_OWN: tuple[str, ...] = (
    # Ray's own settings belong to the node on which they were made.
    "RAY_*",
    # Device lists of the driver: the worker would silently sit on another GPU, or on none.
    "*_VISIBLE_DEVICES",
    "HABANA_VISIBLE_MODULES",
    "ZE_AFFINITY_MASK",
    "TPU_VISIBLE_CHIPS",
    "TPU_CHIPS_PER_HOST_BOUNDS",
    "TPU_HOST_BOUNDS",
)
"""What Ray sets in the processes that it starts: never the driver's, always the node's."""

INTERPRETER_VARIABLES: tuple[str, ...] = (
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "UV_PROJECT_ENVIRONMENT",
    "PYTHONHOME",
    "CONDA_PREFIX",
)
"""What says which interpreter a process was started with."""

NEVER_INHERITED: tuple[str, ...] = (
    *RANK_CONTRACT,
    *LAUNCHERS,
    *RAYS_OWN,
    *INTERPRETER_VARIABLES,
    # The driver's machine and shell.
    "HOSTNAME",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
)
"""Names and patterns of the driver's environment that never reach a worker."""

NEEDED: tuple[str, ...] = (
    *("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "SHELL", "HOSTNAME"),
    *("TMPDIR", "TMP", "TEMP", "TZ", "LANG", "LANGUAGE", "LC_*"),
    # Ray sets these.
    *("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "SPT_NOENV"),
)
"""What a process needs of its node whatever the policy says: programs, folders, language, time."""

BEFORE_PYTHON: tuple[str, ...] = (
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "GLIBC_TUNABLES",
    "MALLOC_*",
    "PYTHONHASHSEED",
    "PYTHONHOME",
    "PYTHONMALLOC",
    "PYTHONOPTIMIZE",
    "PYTHONUTF8",
)
"""Names that are read when a process or its interpreter starts: set later, they do nothing."""
