"""The standard W&B dashboard: what one looks at to compare VAEs, as a ``wandb-workspaces`` definition.

It is built without a connection; ``publish`` needs a login. ``pip install 'vaezoo[dashboard]'``.
"""

from typing import Any

PICTURES = ("reconstructions", "samples", "traversals")


def workspace(entity: str, project: str = "vaezoo") -> Any:
    """The dashboard: ELBO and its parts, the rate-distortion plane, what differs, pictures, speed.

    Args:
        entity: W&B user or team.
        project: its project.

    Returns:
        A ``wandb_workspaces.workspaces.Workspace``; ``.save()`` publishes it.

    Raises:
        ImportError: wandb-workspaces is not installed.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def curves(*names: str, title: str) -> Any:
        return wr.LinePlot(x="Step", y=list(names), title=title)

    def measured(name: str) -> Any:
        return wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(name))

    def set_to(name: str) -> Any:
        return wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name))

    sections = [
        ws.Section(
            name="Bound (nats per image)",
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
                        set_to("model._target_"), set_to("model.latent_dim"), set_to("optimizer.lr"),
                        measured("test/active_units"), measured("test/elbo"),
                    ]
                ),
                wr.BarPlot(metrics=["test/elbo"], title="test ELBO"),
            ],
        ),
        ws.Section(
            name="Latent space",
            panels=[
                curves("val/active_units", title="active units"),
                wr.LinePlot(metric_regex="val/kl_dim/.*", title="KL of each dimension"),
            ],
        ),
        ws.Section(
            name="Pictures",
            panels=[wr.MediaBrowser(media_keys=[f"panels/{kind}"]) for kind in PICTURES],
        ),
        ws.Section(
            name="Training",
            panels=[
                curves("step/loss", title="loss"),
                curves("step/gradient_norm", title="gradient norm"),
                curves("step/learning_rate", title="learning rate"),
                curves("step/images_per_second", title="images/s"),
            ],
        ),
    ]  # fmt: skip
    return ws.Workspace(entity=entity, project=project, name="VAEs compared", sections=sections)


def publish(entity: str, project: str = "vaezoo") -> str:
    """Save the dashboard to W&B, as a new view, and return its address."""
    return workspace(entity, project).save().url
