"""What a launcher, such as `mlx.launch` or `mpirun`, has told this process of the others."""

import json
from collections.abc import Mapping


def rank(environment: Mapping[str, str]) -> int:
    """Which process this is, from 0."""
    return _number(environment, "MLX_RANK", "OMPI_COMM_WORLD_RANK", least=0)


def processes(environment: Mapping[str, str]) -> int:
    """How many processes were started, 1 without a launcher."""
    if "MLX_RANK" not in environment:
        return _number(environment, "OMPI_COMM_WORLD_SIZE", least=1)
    hosts = _hosts(environment, "MLX_HOSTFILE") or _hosts(environment, "MLX_IBV_DEVICES")
    return len(hosts) or _number(environment, "MLX_WORLD_SIZE", least=1)


def addresses(environment: Mapping[str, str]) -> list[str]:
    """Where others reach the first process: each of them at one of these, if any are told."""
    places = next(iter(_hosts(environment, "MLX_HOSTFILE")), [])
    places = [*places, environment.get("MLX_JACCL_COORDINATOR", "")]
    found = [place.rpartition(":")[0].strip("[]") for place in places]
    return [*filter(None, [*found, environment.get("NCCL_HOST_IP")])]


def _hosts(environment: Mapping[str, str], name: str) -> list[list[str]]:
    """What a file that the launcher names says of each process; nothing if there is none."""
    try:
        with open(environment[name], encoding="utf-8") as file:
            hosts: list[list[str]] = json.load(file)
    except (KeyError, OSError, ValueError):
        return []
    return hosts if isinstance(hosts, list) else []


def _number(environment: Mapping[str, str], *names: str, least: int) -> int:
    found = next((environment[name] for name in names if name in environment), "")
    return max(least, int(found)) if found.isdecimal() else least
