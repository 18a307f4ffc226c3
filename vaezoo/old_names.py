"""Names in configs of earlier versions, so that old checkpoints still load."""

# Old to new full names of classes and functions that a config's ``_target_`` may hold.
NEW_NAMES = {
    "vaezoo.callbacks.loggers.CSV": "vaezoo.loggers.CSV",
    "vaezoo.callbacks.loggers.TensorBoard": "vaezoo.loggers.TensorBoard",
    "vaezoo.callbacks.loggers.wandb_logger": "vaezoo.loggers.wandb_logger",
    "vaezoo.callbacks.panels.Panels": "vaezoo.callbacks.images.Panels",
    "vaezoo.flows.FlowPrior": "vaezoo.priors.FlowPrior",
    "vaezoo.flows.IAFPosterior": "vaezoo.families.IAFPosterior",
    "vaezoo.flows.PlanarPosterior": "vaezoo.families.PlanarPosterior",
    "vaezoo.nets.Conditioned": "vaezoo.nets.LabelConditioned",
    "vaezoo.posteriors.FullCovarianceNormal": "vaezoo.families.FullCovarianceNormal",
    "vaezoo.posteriors.diagonal_normal": "vaezoo.families.diagonal_normal",
    "vaezoo.quantizer.Quantizer": "vaezoo.nets.Quantizer",
    "vaezoo.schedulers.cosine": "vaezoo.training.schedulers.cosine",
    "vaezoo.spherical.HypersphericalUniform": "vaezoo.priors.HypersphericalUniform",
    "vaezoo.spherical.VonMisesFisher": "vaezoo.families.VonMisesFisher",
}
