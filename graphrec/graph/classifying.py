"""What `GraphClassifier` and `NodeClassifier` share: building, and the two stages of a frozen backbone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError
from graphrec.module_estimator import ModuleEstimator
from graphrec.pipelines.recipes.complaints import near
from graphrec.registry import card, create_model
from graphrec.training.seeding import seeded

from .batches import GraphBatch
from .histograph import HistoGraph
from .models import Network


class NetworkClassifier(ModuleEstimator):
    """What both estimators share: arguments, building, the two stages of a frozen backbone."""

    def __init__(
        self,
        model: str,
        *,
        model_options: dict[str, Any] | None,
        mode: str,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        patience: int | None,
        monitor: str,
        accelerator: str,
        train_options: dict[str, Any] | None,
        random_state: int | np.random.RandomState | None,
        verbose: int,
    ) -> None:
        self.model = model
        self.model_options = model_options
        self.mode = mode
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.monitor = monitor
        self.accelerator = accelerator
        self.train_options = train_options
        self.random_state = random_state
        self.verbose = verbose

    _task = "graph"

    def _build(self, **facts: Any) -> nn.Module:
        name, options = self._card_name(), self.model_options or {}
        _check_options(options)
        return create_model(name, facts["in_features"], facts["classes"], **options)

    def _card_name(self) -> str:
        name = self.model if self._task == "graph" else f"node_{self.model}"
        if card(name).task != self._task:
            raise ConfigError(f"model={self.model!r}: is for tasks on {card(name).task}s, not {self._task}s")
        return name

    def _plain(self) -> nn.Module:
        """The same backbone with a plain readout, to train what is to be frozen."""
        options = dict(self.model_options or {})
        options.pop("readout_options", None)
        options["readout"] = "mean" if self._task == "graph" else "last"
        return create_model(self._card_name(), self.facts_["in_features"], self.facts_["classes"], **options)

    def _new(self, backbone: ModuleEstimator | None) -> tuple[Network, Network | None]:
        """The network to fit, and for mode "frozen" the one whose backbone it takes (trained if given)."""
        if self.mode not in ("end_to_end", "frozen"):
            raise ConfigError(f"mode={self.mode!r}: must be end_to_end or frozen")
        if backbone is not None and self.mode != "frozen":
            raise ConfigError("backbone: is for mode='frozen'")
        if not self.facts_["in_features"]:
            raise DataError("x: has no columns; leave it out, and every node has a 1")
        with seeded(self.facts_["seed"]):
            module = self._build(**self.facts_)
            if not isinstance(module, Network):
                raise ConfigError(f"model={self.model!r}: has no backbone and readout of this package")
            if self.mode == "end_to_end":
                return module, None
            if backbone is None:
                return module, self._plain()  # type: ignore[return-value]
        check_is_fitted(backbone, "module_")
        return module, backbone.module_  # type: ignore[return-value]

    def _take_backbone(self, module: Network, source: nn.Module) -> None:
        weights: nn.Module = source.backbone  # type: ignore[assignment]
        try:
            module.backbone.load_state_dict(weights.state_dict())
        except RuntimeError as error:
            raise ConfigError(
                "backbone: is of another kind or size; fit it with the same hidden, layers and conv "
                f"({' '.join(str(error).split())[:200]})"
            ) from error
        module.backbone.requires_grad_(False)

    def predict(self, graphs: Any) -> NDArray[Any]:
        """The most likely class of each graph or node."""
        codes = self.predict_proba(graphs).argmax(1)  # first: says so where nothing was fitted
        return self.classes_[codes]

    def predict_proba(self, graphs: Any) -> NDArray[np.float32]:
        """Probabilities, a row per graph or node and a column per class of ``classes_``."""
        raise NotImplementedError

    def _readout(self) -> HistoGraph:
        check_is_fitted(self, "module_")
        readout = getattr(self.module_, "readout", None)
        if not isinstance(readout, HistoGraph):
            raise ConfigError(f"model={self.model!r}: has no attention to draw; fit model='histograph'")
        return readout

    @property
    def _embedded(self) -> bool:
        """Whether the first of a history's activations is the embedded input, not a convolution's output."""
        backbone: Any = self.module_.backbone
        return getattr(backbone, "local", backbone).embed is not None

    def _attention(self, batch: GraphBatch) -> tuple[NDArray[Any], NDArray[Any]]:
        readout = self._readout()
        with torch.inference_mode():
            layers, nodes = readout.attention(self.module_.history(batch), batch.ptr)  # type: ignore[operator]
        return layers.numpy(), nodes.numpy()


def _check_options(options: dict[str, Any]) -> None:
    """Refuse sizes and shares that no network can have, and values of another kind."""
    for name in ("embed", "residual"):
        if not isinstance(options.get(name, False), bool):
            raise ConfigError(f"{name}={options[name]!r}: must be true or false")
    for name in ("conv", "readout", "norm", "jk"):
        if not isinstance(options.get(name, ""), str):
            raise ConfigError(f"{name}={options[name]!r}: must be a name")
    _check_readout_options(options)
    for name in ("hidden", "layers", "heads", "window", "scales", "hops", "states", "expand"):
        size = options.get(name)
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ConfigError(f"{name}={size!r}: must be a whole number from 1 up")
    for name in ("dropout", "global_dropout"):
        share = options.get(name)
        if share is not None and not (isinstance(share, int | float) and 0 <= share < 1):
            raise ConfigError(f"{name}={share!r}: must be a number from 0 to less than 1")


def _check_readout_options(options: dict[str, Any]) -> None:
    given = options.get("readout_options")
    if given is None:
        return
    known = list(inspect.signature(HistoGraph).parameters)[2:]  # without widths and hidden
    if not isinstance(given, Mapping):
        raise ConfigError(f"readout_options={given!r}: must be settings by name, of {', '.join(known)}")
    for name in given:
        if name not in known:
            raise ConfigError(f"readout_options: HISTOGRAPH has no {name!r}{near(name, known)}")


def frozen_history(module: Network, batch: GraphBatch) -> Tensor:
    """The activations of a backbone in evaluation mode, (N, L, D)."""
    module.eval()
    with torch.no_grad():
        return torch.stack(list(module.history(batch)), 1)
