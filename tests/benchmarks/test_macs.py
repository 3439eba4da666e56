"""Which Mac trains how is the plan's word."""

from benchmarks.macs import fit, working_set


def test_what_is_promised_fits():
    for mac in (8, 64):
        found = fit(mac, 4, 64)
        assert found is not None
        assert found.demand.footprint <= 0.9 * working_set(mac)
    assert fit(8, 16, 64) is None  # 7.6 GB of weights do not go into 8 GB
