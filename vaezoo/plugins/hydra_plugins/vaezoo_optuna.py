"""Defaults of Optuna's sweeper, ``hydra/sweeper=optuna`` (``pip install 'vaezoo[sweep]'``).

The value of a trial is the ``objective`` in its summary.json, the validation value of the best checkpoint. The sweeper
minimizes by default, and ends when a trial fails.

They are set here because Hydra refuses a file conf/hydra/sweeper/optuna.yaml beside the config of the plugin.
"""

from contextlib import suppress

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OptunaDefaults(SearchPathPlugin):
    """Stores the defaults. Hydra calls it when it has imported all plugins, among them the one with other defaults."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        with suppress(ImportError):
            from hydra_plugins.hydra_optuna_sweeper.config import (
                OptunaSweeperConf,
                RandomSamplerConfig,
                TPESamplerConfig,
            )

            optuna = OptunaSweeperConf(
                direction="${callbacks.checkpoint_best.mode}imize",
                n_jobs=1,  # trials that are proposed at a time, and run side by side
                max_failure_rate=1.0,
            )
            store = ConfigStore.instance().store
            store(group="hydra/sweeper", name="optuna", node=optuna, provider="vaezoo")
            for name, sampler in {"tpe": TPESamplerConfig(seed=0), "random": RandomSamplerConfig(seed=0)}.items():
                store(group="hydra/sweeper/sampler", name=name, node=sampler, provider="vaezoo")
