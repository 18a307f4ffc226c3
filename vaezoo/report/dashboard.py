"""The standard W&B dashboard for comparing VAEs, as a ``wandb-workspaces`` definition.

Building it needs no connection; ``publish`` needs a login. Install with ``pip install 'vaezoo[dashboard]'``.
"""

from typing import Any

PICTURES = ("reconstructions", "samples", "traversals")
STEP = "trainer/global_step"  # the x axis: optimizer steps


def workspace(entity: str, project: str = "vaezoo") -> Any:
    """Build the dashboard: ELBO and its parts, the rate-distortion plane, settings that differ, pictures and speed.

    Args:
        entity: W&B user or team.
        project: a project of the entity.

    Returns:
        A ``wandb_workspaces.workspaces.Workspace``; ``.save()`` publishes it.

    Raises:
        ImportError: wandb-workspaces is not installed.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def curves(*names: str, title: str) -> Any:
        return wr.LinePlot(x=STEP, y=list(names), title=title)

    def summary_column(name: str) -> Any:
        return wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(name))

    def config_column(name: str) -> Any:
        return wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name))

    sections = [
        ws.Section(
            name="ELBO (nats per example)",
            is_open=True,
            panels=[
                curves("val/elbo", "train/elbo", title="ELBO"),
                curves("val/kl", title="rate"),
                curves("val/log_px", title="log p(x | z): minus the distortion"),
                wr.ScatterPlot(
                    x=wr.SummaryMetric("test/kl"), y=wr.SummaryMetric("test/log_px"), title="rate and distortion, test"
                ),
                wr.ParallelCoordinatesPlot(
                    columns=[
                        config_column("model._target_"), config_column("model.latent_dim"),
                        config_column("optimizer.lr"),
                        summary_column("test/active_units"), summary_column("test/elbo"),
                    ]
                ),
                wr.BarPlot(metrics=["test/elbo"], title="test ELBO"),
            ],
        ),
        ws.Section(
            name="Latent space",
            panels=[
                curves("val/active_units", title="active units"),
                curves("val/kl_per_dim", title="KL of each dimension"),
            ],
        ),
        ws.Section(
            name="Images",
            panels=[wr.MediaBrowser(media_keys=[f"images/{kind}"]) for kind in PICTURES],
        ),
        ws.Section(
            name="Optimization",
            panels=[
                curves("optimization/loss", title="loss"),
                curves("optimization/gradient_norm", title="gradient norm"),
                curves("optimization/learning_rate", title="learning rate"),
                curves("optimization/examples_per_second", title="examples/s"),
            ],
        ),
    ]  # fmt: skip
    return ws.Workspace(entity=entity, project=project, name="VAEs compared", sections=sections)


def publish(entity: str, project: str = "vaezoo") -> str:
    """Save the dashboard to W&B as a new view and return its URL."""
    return workspace(entity, project).save().url
