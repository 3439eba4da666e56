"""What `mlx.launch` and `mpirun` set, read as they set it."""

import json

import pytest

from mlx_yoda import launcher


@pytest.fixture
def hostfile(tmp_path):
    def written(hosts):
        (tmp_path / "hosts").write_text(json.dumps(hosts) if hosts else "")
        return str(tmp_path / "hosts")

    return written


RING = [["10.0.0.1:32323", "10.0.1.1:32324"], ["10.0.0.2:32325"]]
RDMA = [[None, "rdma_en2"], ["rdma_en2", None]]


@pytest.mark.parametrize(
    ("file", "hosts", "more", "expected"),
    [
        (None, None, {}, (0, 1, [])),
        ("MLX_HOSTFILE", None, {"MLX_RANK": "0"}, (0, 1, [])),  # mlx.launch -n 1: empty
        ("MLX_HOSTFILE", RING, {"MLX_RANK": "1"}, (1, 2, ["10.0.0.1", "10.0.1.1"])),
        ("MLX_HOSTFILE", [["[::1]:32323"], ["[::1]:2"]], {"MLX_RANK": "0"}, (0, 2, ["::1"])),
        (
            "MLX_IBV_DEVICES",
            RDMA,
            {"MLX_RANK": "1", "MLX_JACCL_COORDINATOR": "10.0.0.1:32323"},
            (1, 2, ["10.0.0.1"]),
        ),
        (
            None,
            None,
            {"MLX_RANK": "2", "MLX_WORLD_SIZE": "4", "NCCL_HOST_IP": "10.0.0.9"},
            (2, 4, ["10.0.0.9"]),
        ),
        (None, None, {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"}, (3, 8, [])),
        (None, None, {"MLX_RANK": "x", "MLX_HOSTFILE": "/nowhere"}, (0, 1, [])),
    ],
)
def test_what_a_launcher_says(hostfile, file, hosts, more, expected):
    environment = {**({file: hostfile(hosts)} if file else {}), **more}
    found = launcher.rank(environment), launcher.processes(environment)
    assert (*found, launcher.addresses(environment)) == expected
