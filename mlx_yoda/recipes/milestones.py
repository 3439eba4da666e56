"""What happens after a step when it is time: evaluation, checkpoints, stopping early."""

from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.lora.binding import Adapter, Layers, install
from mlx_yoda.model.load import Loaded
from mlx_yoda.recipes.dataset import Dataset
from mlx_yoda.recipes.interruption import Interrupted, Stop
from mlx_yoda.recipes.samples import generated, sample
from mlx_yoda.recipes.saving import NotSaving, Saver
from mlx_yoda.recipes.together import as_one
from mlx_yoda.report.events import Evaluated, Noted, Reporter, Sample, Sampled, Working
from mlx_yoda.train.best import Best, metric_name
from mlx_yoda.train.evaluate import held_out_loss, perplexity
from mlx_yoda.train.health import symptoms
from mlx_yoda.train.integrity import flaw
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import Plan
from mlx_yoda.train.step import State


class Milestones:
    """Called after each step; evaluates and saves as the strategies say, and at the end.

    Attributes:
        best: the best evaluation so far, if the configuration asks for it.
        kept: the step whose adapter `install_final` took, if not the last one's.
    """

    def __init__(
        self,
        config: TrainConfig,
        plan: Plan,
        base: Loaded,
        layers: Layers,
        data: Dataset,
        saver: Saver | NotSaving,
        report: Reporter,
        best: Best,
        stop: Stop,
    ) -> None:
        self.config, self.plan = config, plan
        self.base, self.layers, self.data = base, layers, data
        self.saver, self.report, self.best, self.stop = saver, report, best, stop
        self.group = stop.group
        self.kept: int | None = None

    def __call__(self, state: State, meter: Meter) -> bool:
        """Do what is due after this step; says whether to stop there.

        Raises:
            Interrupted: a signal asks to stop, and the step is saved.
            UserError: there is no point in going on.
        """
        for symptom in symptoms(state.step, meter, self.plan, self.base.config.get("vocab_size")):
            self.report(Noted(symptom))
        config, step, improved, stop = self.config, state.step, False, False
        every = config.logging_steps if config.eval_steps is None else config.eval_steps
        if self.data.validation and self._due(config.eval_strategy, every, step):
            before = self.best
            with as_one(self.group, f"measuring after step {step}"):
                self._evaluate(state)
            improved = self.best.step == step != before.step
            stop = self.best.exhausted(config) and step < self.plan.total_steps
        if (
            self._due(config.save_strategy, config.save_steps, step)
            or (improved and config.save_strategy == "best")
            or self.saver.failed
            or self.stop.signum
        ):
            self._save(state, meter)
        if self.stop.signum:
            raise Interrupted(self.stop.signum, step)
        if stop:
            self.report(Noted(self._why_stopped(step)))
        return stop

    def _save(self, state: State, meter: Meter) -> None:
        best = self.best.saving(state.step)
        if self.saver.save(state, meter, best):
            self.best = best

    def install_final(self, last: Adapter) -> Adapter:
        """Install the adapter to keep: the last, or the best saved if that is asked for."""
        adapter = self._best_saved() or last
        install(self.layers, adapter)
        return adapter

    def _best_saved(self) -> Adapter | None:
        step = self.best.saved
        if not self.config.load_best_model_at_end or step is None:
            return None
        assert isinstance(self.saver, Saver)  # only the first process installs the final one
        path = self.saver.output.path / f"checkpoint-{step}"
        if reason := flaw(path) if path.is_dir() else "it is gone":
            self.report(
                Noted(f"the adapter is the last step's: the best checkpoint {path}: {reason}")
            )
            return None
        name = metric_name(self.config)
        self.report(Noted(f"the adapter is that of step {step}, the best saved by {name}"))
        self.kept = step
        return load_adapter(path).weights()

    def _due(self, strategy: str, every: float, step: int) -> bool:
        if strategy in ("no", "best"):
            return False
        epoch = self.plan.steps_per_epoch
        period = epoch if strategy == "epoch" else self.plan.interval(every)
        return step % period == 0 or step == self.plan.total_steps

    def _evaluate(self, state: State) -> None:
        """Measure, let the model say a sentence, and remember the best."""
        self.report(Working("measuring on held-out rows"))
        install(self.layers, state.adapter)
        rows, size = self.data.validation, self.config.per_device_eval_batch_size
        total, tokens = held_out_loss(self.base.model, rows, size, self.group)
        loss, step, name = total / tokens, state.step, metric_name(self.config)
        found = {"loss": loss, "perplexity": perplexity(loss)}
        if name in ("exact_match", "chrf") and self.group.leads:
            scores = generated(
                self.base,
                self.data.questions,
                when="after",
                step=step,
                max_new_tokens=self.config.generation_max_new_tokens,
            )
            found |= {"exact_match": scores.exact_match, "chrf": scores.chrf}
        found = self.group.told(found)
        measured = {f"eval_{key}": value for key, value in found.items()}
        self.report(Evaluated(step, self.plan.epoch(step), eval_tokens=tokens, **measured))
        if self.data.questions and self.group.leads:
            self.report(Sampled(step, self._sample()))
        if name:
            self.best = self.best.after(found[name], step, self.config)

    def _sample(self) -> Sample:
        """One greedy answer, always to the same question; nothing is drawn for it."""
        most = self.config.generation_max_new_tokens
        return sample(self.base, self.data.questions[0], max_new_tokens=most)

    def _why_stopped(self, step: int) -> str:
        least = self.config.early_stopping_threshold
        enough = f" by more than {least:g}" if least else ""
        return (
            f"stopping early at step {step}: {metric_name(self.config)} has not improved{enough} "
            f"for {self.best.waited} evaluations; the best was {self.best.metric:.4g} at step "
            f"{self.best.step}"
        )
