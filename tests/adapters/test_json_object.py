"""Small JSON files of strangers."""

import pytest

from mlx_yoda.adapters.json_object import read_object
from mlx_yoda.errors import UserError


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"[]", b"{" * 10**5, b'{"r": ' + b"9" * 10**4 + b"}", b" " * (1 << 20) + b"{}"],
    ids=["bytes", "list", "nested", "endless number", "two megabytes"],
)
def test_a_configuration_that_is_none_is_one_sentence(tmp_path, content):
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"adapter_config\.json (cannot|must|has more)") as error:
        read_object(tmp_path / "adapter_config.json")
    assert len(str(error.value)) < 400
