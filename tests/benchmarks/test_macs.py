"""The README's memory table is the plan's."""

from benchmarks.macs import BEGIN, END, README, fit, updated, working_set


def test_the_readme_s_table_is_current():
    readme = README.read_text("utf-8")
    assert readme.count(BEGIN) == readme.count(END) == 1
    assert readme == updated(readme), "run `python -m benchmarks.macs`"


def test_what_is_promised_fits():
    for mac in (8, 64):
        found = fit(mac, 4, 64)
        assert found is not None
        assert found.demand.footprint <= 0.9 * working_set(mac)
    assert fit(8, 16, 64) is None  # 7.6 GB of weights do not go into 8 GB
