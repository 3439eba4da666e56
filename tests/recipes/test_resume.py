"""What a run goes on from: the newest intact checkpoint, of the same run unless forced."""

import shutil
from pathlib import Path

import pytest

from mlx_yoda import files
from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError
from mlx_yoda.model.convert import convert
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.train.integrity import flaw

WEIGHTS = "adapter_model.safetensors"


def run(config, **how) -> list[str]:
    """Train; what was noted."""
    events: list = []
    finetune(config, reporter=events.append, **how)
    return [event.message for event in events if event.name == "note"]


@pytest.fixture(scope="module")
def whole(configure, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    run(configure(output))
    return output


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    """Of the finished run, without its final adapter."""
    output = shutil.copytree(whole, tmp_path / "run")
    (output / WEIGHTS).unlink()
    return output


def damage(checkpoint: Path, name: str, how: str) -> None:
    path = checkpoint / name
    content = path.read_bytes()
    match how:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "gone":
            path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
@pytest.mark.parametrize(
    "name", [WEIGHTS, "adapter_config.json", "optimizer.safetensors", "trainer_state.json"]
)
def test_a_broken_checkpoint_is_passed_over_said_and_made_again(configure, whole, copy, name, how):
    damage(copy / "checkpoint-6", name, how)
    damage(copy / "checkpoint-5", name, how)
    notes = run(configure(copy), resume=True)
    assert len(notes) == 2
    for note, step in zip(notes, (6, 5), strict=True):
        assert note.startswith(f"passed over {copy / f'checkpoint-{step}'}, which is broken: ")
        assert name in note
    assert (copy / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert all(flaw(checkpoint) is None for checkpoint in copy.glob("checkpoint-*"))


def test_a_broken_checkpoint_that_was_named_is_refused(configure, copy):
    damage(copy / "checkpoint-6", "optimizer.safetensors", "cut")
    with pytest.raises(UserError, match=r"checkpoint-6 is broken: optimizer.safetensors has"):
        run(configure(copy), resume=copy / "checkpoint-6")


def test_without_an_intact_one_each_is_named(configure, copy):
    for checkpoint in copy.glob("checkpoint-*"):
        damage(checkpoint, "trainer_state.json", "gone")
    with pytest.raises(UserError, match="no intact checkpoint") as error:
        run(configure(copy), resume=True)
    assert str(error.value).count("trainer_state.json cannot be read") == 6


def test_the_folder_of_another_run_may_be_named(configure, whole, copy, tmp_path):
    damage(copy / "checkpoint-6", WEIGHTS, "cut")
    notes = run(configure(tmp_path / "new"), resume=copy)
    assert "passed over" in notes[0]
    assert (tmp_path / "new" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_an_older_one_may_be_named_and_the_newer_ones_stay(configure, whole, copy):
    run(configure(copy, "train.save_total_limit=2"), resume=copy / "checkpoint-2")
    assert (copy / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    names = sorted(path.name for path in copy.glob("checkpoint-*"))
    assert names == ["checkpoint-5", "checkpoint-6"]


def test_a_finished_run_that_is_asked_for_more_says_how(configure, copy):
    """Its learning rate has come down to 0: with --force it would start again from there."""
    with pytest.raises(UserError, match=r"last step of a finished run.*--init-adapter .*-6"):
        run(configure(copy, "train.max_steps=9"), resume=True)
    with pytest.raises(UserError, match="belongs to another run"):
        run(configure(copy, "train.max_steps=9", "train.learning_rate=5e-3"), resume=True)


DIFFERENT = {
    "train.learning_rate=5e-3": "train.learning_rate was 0.01 and is 0.005",
    "train.max_steps=9": "total steps was 6 and is 9",
    "data.train_on=all": "the training rows was",
    "lora.lora_alpha=3": "lora.lora_alpha was 16 and is 3",
}


@pytest.mark.slow
@pytest.mark.parametrize(("override", "said"), DIFFERENT.items())
def test_force_goes_on_with_what_has_changed_and_says_it(configure, copy, override, said):
    config = configure(copy, override)
    with pytest.raises(UserError, match="--force") as error:
        run(config, resume=copy / "checkpoint-4")
    assert said in str(error.value)
    notes = run(config, resume=copy / "checkpoint-4", force=True)
    assert any(note.startswith(f"--force: {said}") for note in notes)
    assert load_adapter(copy).tensors
    run(config, resume=True)  # the checkpoints are now this run's


@pytest.mark.slow
def test_what_is_the_same_stays_and_what_differs_is_replaced(configure, copy):
    """Moments of step 5 do not depend on its learning rate, the weights do."""

    def written(step):
        return (copy / f"checkpoint-{step}" / "trainer_state.json").stat().st_ino

    before = {step: written(step) for step in (5, 6)}
    run(configure(copy), resume=copy / "checkpoint-4")
    assert {step: written(step) for step in (5, 6)} == before
    other = configure(copy, "train.learning_rate=5e-3")
    run(other, resume=copy / "checkpoint-4", force=True)
    assert all(written(step) != before[step] for step in (5, 6))
    run(other, resume=copy / "checkpoint-5")  # it is of these settings


def test_the_held_out_rows_must_be_the_same(configure, copy):
    with pytest.raises(UserError, match="the held-out rows was"):
        run(configure(copy, "data.validation_split=0.3"), resume=True)


def test_other_weights_with_the_same_config_are_another_base(configure, copy, base_folder):
    from mlx_yoda.recipes import identity

    before = identity._digest_weights(base_folder)
    assert before == identity._digest_weights(base_folder)
    other = shutil.copytree(base_folder, copy.parent / "base")
    for path in other.glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :: 4] = bytes(len(content[len(content) // 2 :: 4]))
        path.write_bytes(content)
    assert identity._digest_weights(other) != before
    with pytest.raises(UserError, match="the base's weights was"):
        run(configure(copy, base=other), resume=True)


@pytest.mark.parametrize(
    "override", ["lora.r=4", "lora.target_modules=[o_proj]", "lora.layers_to_transform=[1]"]
)
def test_shapes_cannot_be_forced(configure, copy, override):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"does not fit: .*lora_A is .*\(not even --force"):
        run(configure(copy, override), resume=True, force=True)
    with pytest.raises(UserError, match="another run") as error:
        run(configure(copy, override), resume=True)
    assert "--force" not in str(error.value)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_quantised_base_can_be_forced(configure, copy, base_folder, tmp_path):
    convert(base_folder, tmp_path / "q", quantization=Quantization(8, 32))
    config = configure(copy, base=tmp_path / "q")
    with pytest.raises(UserError, match=r"the base's config\.json was"):
        run(config, resume=copy / "checkpoint-4")
    run(config, resume=copy / "checkpoint-4", force=True)


def test_another_architecture_cannot_be_forced(configure, copy, monkeypatch):
    from mlx_yoda.recipes import finetune as recipe

    def as_llama(*args):
        identity = identify(*args)
        return type(identity)(**{**vars(identity), "architecture": "llama"})

    identify = recipe.identify
    monkeypatch.setattr(recipe, "identify", as_llama)
    with pytest.raises(UserError, match="is of a phi3 and the base is a llama"):
        run(configure(copy), resume=True, force=True)


def test_what_a_killed_process_left_is_swept(configure, whole, copy):
    gone = f"99999999@{files._host()}.x1.aside"
    (copy / f".checkpoint-7.{gone}").mkdir()
    (copy / f".config.yaml.{gone}").write_text("half")
    run(configure(copy), resume=True)
    assert {path.name for path in copy.iterdir()} == {path.name for path in whole.iterdir()}
