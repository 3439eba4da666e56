"""Events as numbers under the names that Transformers' Trainer logs them by."""

from mlx_yoda.report.events import Evaluated, Event, Finished, Generated, Stepped

Logs = dict[str, float]


def logs(event: Event) -> tuple[int, Logs] | None:
    """The step and the numbers of an event; None where it has none to log.

    `train/loss`, `train/grad_norm`, `train/learning_rate`, `train/epoch`,
    `train/num_input_tokens_seen`, `eval/loss`, and at the end `train/train_loss` and
    `train/train_runtime` are Transformers' own (`integrations.rewrite_logs`); perplexity, scores,
    speed and memory are named after them.
    """
    match event:
        case Stepped() if event.logged:
            return event.step, {
                "train/loss": event.loss,
                "train/grad_norm": event.grad_norm,
                "train/learning_rate": event.learning_rate,
                "train/epoch": event.epoch,
                "train/num_input_tokens_seen": event.input_tokens,
                "train/input_tokens_per_second": event.input_tokens_per_second,
                "train/supervised_tokens_per_second": event.supervised_tokens_per_second,
                "train/peak_memory_gb": event.peak_memory / 1e9,
            }
        case Evaluated():
            found = {
                "eval/loss": event.eval_loss,
                "eval/perplexity": event.eval_perplexity,
                "eval/exact_match": event.eval_exact_match,
                "eval/chrf": event.eval_chrf,
                "train/epoch": event.epoch,
            }
            return event.step, {name: value for name, value in found.items() if value is not None}
        case Generated():
            return event.step, {"eval/exact_match": event.exact_match, "eval/chrf": event.chrf}
        case Finished():
            return event.step, {
                "train/train_loss": event.train_loss,
                "train/train_runtime": event.train_runtime,
            }
    return None
