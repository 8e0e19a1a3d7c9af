"""Neural stages. Importing this package imports torch and skorch."""

from skmsc.neural._batches import TensorBatches
from skmsc.neural._multi_exit_net import MultiExitNet
from skmsc.neural._net_stage import NetStage
from skmsc.neural._tabular_net import TabularNet

__all__ = ["MultiExitNet", "NetStage", "TabularNet", "TensorBatches"]
