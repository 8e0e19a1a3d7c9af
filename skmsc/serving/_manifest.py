"""What an exported classifier is besides its graphs, as JSON: thresholds, maps, classes, stages."""

import json
from dataclasses import asdict, dataclass

import numpy as np

from skmsc._acting import CONFIDENCES
from skmsc._maps import Calibration, Sigmoid, Steps, Temperature

KIND = "skmsc export"
FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Fetch:
    """Features that a stage fetches.

    Attributes
    ----------
    on : int, tuple of int, or None
        Positions of the columns that the fetch is given; None: all.
    rest : tuple of int
        Positions of the columns that the stage keeps beside the fetched ones.
    columns : tuple of (str, str)
        Names and types of the fetched columns.
    """

    on: object
    rest: tuple
    columns: tuple


@dataclass(frozen=True)
class Stage:
    """A stage of an exported classifier.

    Attributes
    ----------
    name : str
        Its name.
    inputs : tuple of (str, str)
        What each input of its graph takes: its name in the graph, and what it is called among all
        arrays that wait: "X" or "column <name>" for what the classifier is given, else an output
        of an earlier graph.
    outputs : tuple of str
        What its graph gives besides the scores.
    fetch : Fetch or None
        What it fetches.
    """

    name: str
    inputs: tuple
    outputs: tuple = ()
    fetch: Fetch | None = None


@dataclass(frozen=True)
class Manifest:
    """Everything but the graphs; see `skmsc.serving.ExportedClassifier` for what it means.

    Attributes
    ----------
    estimator : str
        Class of the estimator.
    classes, thresholds, stage_costs : ndarrays
        As in the estimator; costs may be None.
    calibrations : list of Calibration, Temperature or None
        A map for each stage.
    alert_threshold : float or None
    measure : str
        What thresholds act on.
    positive, negative : int or None
        Codes of classes.
    sigmoids : bool
        Whether scores are sigmoids that need not sum to 1, of the log-odds that graphs give.
    stages : tuple of Stage
    n_features : int
        Number of columns of a row.
    names : tuple of str, or None
        Their names.
    columns : tuple of (str, str), or None
        Names and types, where each column is an input of its own.
    allow_nan : bool
        Whether nan is a value like others.
    on_stage_error : {"raise", "answer_earlier", "alert"}
        What becomes of rows at which a later stage raises.
    prepared : bool
        Whether a graph of transformers runs before the stages.
    versions : dict of str to str
        Of the packages that wrote it.
    """

    estimator: str
    classes: np.ndarray
    thresholds: np.ndarray
    stage_costs: np.ndarray | None
    calibrations: list
    alert_threshold: float | None
    measure: str
    positive: int | None
    negative: int | None
    sigmoids: bool
    stages: tuple
    n_features: int
    names: tuple | None
    columns: tuple | None
    allow_nan: bool
    on_stage_error: str
    prepared: bool
    versions: dict

    def to_json(self):
        """Bytes that `from_json` reads."""
        told = asdict(self) | {
            "format": FORMAT,
            "classes": _labels(self.classes),
            "thresholds": _numbers(self.thresholds),
            "stage_costs": _numbers(self.stage_costs),
            "alert_threshold": _numbers(self.alert_threshold),
            "calibrations": [_map_told(calibration) for calibration in self.calibrations],
        }
        return json.dumps(told, indent=1, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content):
        """Raises ValueError where the format is not the one known here."""
        try:
            told = json.loads(content)
            found = told.pop("format", None)
        except (ValueError, AttributeError) as error:
            raise ValueError(
                "The export has a manifest that is not what `export` writes."
            ) from error
        if found != FORMAT:
            raise ValueError(
                f"The export has format {found!r}, and this version of skmsc reads {FORMAT}: load "
                f"it with the version that wrote it ({told.get('versions')}), or export again."
            )
        costs, alert = told["stage_costs"], told["alert_threshold"]
        read = {
            "classes": np.array(told["classes"]["values"], dtype=told["classes"]["dtype"]),
            "thresholds": _array(told["thresholds"]),
            "stage_costs": None if costs is None else _array(costs),
            "alert_threshold": None if alert is None else float(alert),
            "calibrations": [_map_read(calibration) for calibration in told["calibrations"]],
            "stages": tuple(_stage_read(stage) for stage in told["stages"]),
            "names": None if told["names"] is None else tuple(told["names"]),
            "columns": _pairs(told["columns"]),
        }
        manifest = cls(**told | read)
        manifest._check()
        return manifest

    def _check(self):
        """Raise where parts do not fit together."""
        n_stages, costs = len(self.stages), self.stage_costs
        if (
            self.thresholds.shape != (n_stages, len(self.classes))
            or len(self.calibrations) != n_stages
            or (costs is not None and costs.shape != (n_stages,))
            or self.measure not in CONFIDENCES
        ):
            raise ValueError("The export has thresholds, maps or costs that are not its stages'.")


def _numbers(values):
    """Numbers, in lists as the array has them; what JSON has no number for as a string."""
    if values is None:
        return None
    if np.ndim(values):
        return [_numbers(value) for value in values]
    return float(values) if np.isfinite(values) else str(float(values))


def _array(values):
    return np.array(values, dtype=np.float64)


def _labels(classes):
    kinds = {type(label) for label in classes.tolist()}
    if not kinds <= {str, int, float, bool}:
        raise TypeError(
            f"Labels must be strings, numbers or booleans to be exported; got {classes!r}."
        )
    return {"dtype": classes.dtype.str, "values": classes.tolist()}


def _map_told(calibration):
    if calibration is None:
        return None
    if isinstance(calibration, Temperature):
        return {"temperature": _numbers([calibration.slope, calibration.limit])}
    if not isinstance(calibration, Calibration):
        raise TypeError(f"Maps must be of this package to be exported; got {calibration!r}.")
    maps = [
        {"sigmoid": _numbers([one.slope, one.intercept, one.limit])}
        if isinstance(one, Sigmoid)
        else {"score": _numbers(one.score), "proba": _numbers(one.proba)}
        for one in calibration.maps
    ]
    return {"maps": maps, "from_decisions": bool(calibration.from_decisions)}


def _map_read(told):
    if told is None:
        return None
    if "temperature" in told:
        return Temperature(*map(float, told["temperature"]))
    maps = tuple(
        Sigmoid(*map(float, one["sigmoid"]))
        if "sigmoid" in one
        else Steps(_array(one["score"]), _array(one["proba"]))
        for one in told["maps"]
    )
    return Calibration(maps, told["from_decisions"])


def _stage_read(told):
    fetch = told["fetch"]
    if fetch is not None:
        on = tuple(fetch["on"]) if isinstance(fetch["on"], list) else fetch["on"]
        fetch = Fetch(on, tuple(fetch["rest"]), _pairs(fetch["columns"]))
    return Stage(told["name"], _pairs(told["inputs"]), tuple(told["outputs"]), fetch)


def _pairs(told):
    return None if told is None else tuple(map(tuple, told))
