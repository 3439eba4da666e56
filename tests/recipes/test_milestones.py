"""Evaluation, checkpoints and early stopping, as a user configures them."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from mlx_yoda.config.parse import load_config
from mlx_yoda.errors import UserError
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.report.events import Evaluated, Noted, Sampled, Stepped

# The held-out loss falls from step to step, so the best is an early one only upside down.
BEST = (
    *("train.load_best_model_at_end=true", "train.max_steps=6", "train.learning_rate=3e-2"),
    "train.greater_is_better=true",
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """40 rows, half of them held out, so few that a test is quick."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    names = "abcdefghijklmnopqrst"
    lines = [{"prompt": a, "completion": f"{b} it is"} for a in "xy" for b in names]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def run(base_folder, rows, tmp_path):
    """Runs with these settings and tells the events."""

    def run(*overrides, folder="run", resume=False, data=rows):
        options = {
            "model.model_name_or_path": str(base_folder),
            "data.dataset_name": str(data),
            "train.output_dir": str(tmp_path / folder),
        }
        small = [
            "data.validation_split=0.5",
            "train.learning_rate=0.3",
            "train.logging_steps=1",
            "train.eval_strategy=steps",
            "train.eval_steps=1",
            "train.save_strategy=steps",
            "train.save_steps=1",
            "train.generation_max_new_tokens=4",
        ]
        events = []
        config = load_config(None, [*small, *overrides], options)
        finetune(config, reporter=events.append, resume=resume)
        return events

    return run


def losses(events):
    return {event.step: event.eval_loss for event in events if isinstance(event, Evaluated)}


def saved(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def test_the_best_checkpoint_is_kept_and_becomes_the_adapter(run, tmp_path):
    events = run(*BEST, "train.save_total_limit=1")
    found = losses(events)
    best = max(found, key=lambda step: (found[step], -step))
    assert best != 6  # or the test would show nothing
    assert saved(tmp_path / "run") == [best, 6]
    folder = tmp_path / "run"
    assert weights(folder) == weights(folder / f"checkpoint-{best}")
    assert weights(folder) != weights(folder / "checkpoint-6")
    assert events[-1].kept_step == best
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results[0].metric_value == pytest.approx(found[best], abs=1e-6)
    assert f"weights of step {best}, the best" in card.text


@pytest.mark.slow
def test_it_stops_when_patience_has_run_out(run, tmp_path):
    whole = losses(run(*BEST))
    events = run(*BEST, "train.early_stopping_patience=2", folder="early")
    found = losses(events)
    best = max(found, key=lambda step: found[step])
    assert found == {step: loss for step, loss in whole.items() if step <= best + 2}
    assert max(found) < 6
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert any(f"stopping early at step {best + 2}" in note for note in notes)
    assert weights(tmp_path / "early") == weights(tmp_path / f"early/checkpoint-{best}")


@pytest.mark.parametrize("stopped_after", [1, 3])
def test_a_resumed_run_remembers_the_best_and_the_patience(run, tmp_path, stopped_after):
    early = (*BEST, "train.early_stopping_patience=3", "train.save_total_limit=null")
    whole = run(*early)
    folder = tmp_path / "run"
    shutil.copytree(folder, tmp_path / "again")
    for step in saved(folder):
        if step > stopped_after:
            shutil.rmtree(tmp_path / "again" / f"checkpoint-{step}")
    resumed = run(*early, folder="again", resume=True)
    later = {step: loss for step, loss in losses(whole).items() if step > stopped_after}
    assert losses(resumed) == later
    assert saved(tmp_path / "again") == saved(folder)
    for step in saved(folder):
        states = [
            json.loads((parent / f"checkpoint-{step}" / "trainer_state.json").read_text())
            for parent in (folder, tmp_path / "again")
        ]
        for state in states:
            state["meter"].pop("seconds")
            state.pop("sha256")  # of all of it, the seconds too
        assert states[0] == states[1]
        assert states[0]["best_global_step"] <= step
    assert weights(folder) == weights(tmp_path / "again")


def test_a_run_that_had_stopped_early_has_nothing_to_go_on_with(run, tmp_path):
    early = (*BEST, "train.early_stopping_patience=2", "train.save_total_limit=null")
    run(*early)
    folder = tmp_path / "run"
    before, kept = saved(folder), weights(folder)
    (folder / "adapter_model.safetensors").unlink()
    assert not losses(run(*early, resume=True))
    assert (saved(folder), weights(folder)) == (before, kept)
    patient = [text.replace("patience=2", "patience=3") for text in early]
    assert list(losses(run(*patient, resume=True))) == [before[-1] + 1]


@pytest.mark.slow
def test_saving_the_best_saves_only_what_is_better(run, tmp_path):
    found = losses(
        run("train.max_steps=8", "train.save_strategy=best", "train.save_total_limit=null")
    )
    better = [
        step
        for step, loss in found.items()
        if all(loss < old for at, old in found.items() if at < step)
    ]
    assert saved(tmp_path / "run") == better


def test_a_share_of_the_steps_is_rounded_up(run, tmp_path):
    events = run(
        *("train.max_steps=5", "train.logging_steps=0.5", "train.eval_steps=0.25"),
        *("train.save_steps=0.6", "train.save_total_limit=null"),
    )
    assert [e.step for e in events if isinstance(e, Stepped) and e.logged] == [3, 5]
    assert list(losses(events)) == [2, 4, 5]
    assert saved(tmp_path / "run") == [3, 5]


def test_without_eval_steps_it_goes_by_logging_steps(run):
    events = run("train.max_steps=5", "train.logging_steps=2", "train.eval_steps=null")
    assert list(losses(events)) == [2, 4, 5]


def test_a_sentence_is_said_at_every_evaluation_and_changes_no_bit(run, tmp_path):
    settings = ("train.max_steps=3", "train.learning_rate=1e-3")
    said = [event for event in run(*settings) if isinstance(event, Sampled)]
    assert [event.step for event in said] == [1, 2, 3]
    assert len({event.sample.prompt for event in said}) == 1
    run(*settings, "train.eval_strategy=no", folder="silent")
    assert weights(tmp_path / "run") == weights(tmp_path / "silent")


def test_the_best_may_be_told_by_exact_matches(run, tmp_path):
    events = run(*BEST, "train.metric_for_best_model=chrf")
    found = {e.step: e.eval_chrf for e in events if isinstance(e, Evaluated)}
    best = max(found, key=lambda step: (found[step], -step))
    assert weights(tmp_path / "run") == weights(tmp_path / f"run/checkpoint-{best}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.load_best_model_at_end=true", "train.eval_strategy=no"], "needs evaluations"),
        (["train.early_stopping_patience=1", "train.eval_strategy=no"], "needs evaluations"),
        (["train.save_strategy=best", "train.eval_strategy=no"], "needs evaluations"),
        (
            ["train.load_best_model_at_end=true", "train.save_strategy=epoch"],
            "to be the same (or save_strategy to be best); they are epoch and steps",
        ),
        (
            ["train.load_best_model_at_end=true", "train.eval_steps=2", "train.save_steps=3"],
            "train.save_steps to be a multiple of train.eval_steps; they are 3 and 2",
        ),
        (["train.load_best_model_at_end=true", "train.save_steps=0.5"], "they are 0.5 and 1"),
        (["train.early_stopping_patience=1", "data.validation_split=0"], "no held-out rows"),
        (["train.metric_for_best_model=accuracy"], "one of loss, perplexity, exact_match, chrf"),
        (["train.eval_steps=1.5"], "a whole number of steps, or a share"),
    ],
)
def test_what_cannot_go_together_is_said_before_anything_is_written(run, tmp_path, overrides, said):
    with pytest.raises(UserError) as error:
        run(*overrides)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_text_has_no_answers_to_score(run, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"{n} it is"}) + "\n" for n in "abcdefgh"))
    with pytest.raises(UserError, match="no questions with answers"):
        run("train.metric_for_best_model=chrf", data=text)


@pytest.mark.parametrize("shares", ["0.1 0.3", "0.1 0.1", "0.05 0.15", "2 4"])
def test_multiples_are_seen_in_shares_too(shares):
    evaluation, saving = shares.split()
    load_config(
        None,
        [
            *("train.load_best_model_at_end=true", f"train.eval_steps={evaluation}"),
            *("train.eval_strategy=steps", "train.save_strategy=steps"),
            f"train.save_steps={saving}",
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_best_checkpoint_that_is_not_intact_is_not_installed(run, tmp_path, how):
    """One flipped bit would be installed; a file cut short could never be finished with."""
    events = run(*BEST, "train.save_total_limit=null")
    found = losses(events)
    best = max(found, key=lambda step: (found[step], -step))  # greater is better there
    file = tmp_path / f"run/checkpoint-{best}/adapter_model.safetensors"
    content = file.read_bytes()
    match how:
        case "flipped":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            file.write_bytes(content[:-8])
        case "gone":
            shutil.rmtree(file.parent)
    last = max(found)
    assert best < last
    said = [
        e.message
        for e in run(*BEST, "train.save_total_limit=null", resume=True)
        if e.name == "note"
    ]
    assert any(f"the best checkpoint {file.parent}" in note for note in said)
    assert weights(tmp_path / "run") == weights(tmp_path / f"run/checkpoint-{last}")


@pytest.mark.slow
def test_metrics_that_were_damaged_cost_the_page_and_not_the_run(run, tmp_path):
    settings = ("train.max_steps=3", "train.save_total_limit=null")
    run(*settings)
    folder = tmp_path / "run"
    shutil.rmtree(folder / "checkpoint-3")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "sample", "step": 1}\n')
    events = run(*settings, resume=True)
    assert (folder / "adapter_model.safetensors").exists()
    assert "there is no report.html" in events[-1].message
