"""How a scan is to be read, where the file alone does not decide it; light to import, as help texts show it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from foundation.errors import SettingError
from foundation.settings import check_choices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Unit = Literal["m", "cm", "mm", "ft", "us-ft"]
METRES: dict[str, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "us-ft": 1200.0 / 3937.0}
NOISE_CLASSES = (7, 18)  # low and high noise in the LAS standard
# Rotations that bring an axis of the file to z. That of y is how glTF's y-up scenes are turned upright.
UPRIGHT: dict[str, tuple[tuple[float, ...], ...]] = {
    "x": ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "y": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "z": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}


@dataclass(frozen=True)
class ScanOptions:
    """How the files of the scan are read.

    Attributes:
        columns: names of the columns of a text file or NumPy table, instead of its own header, such as
            x,y,z,,red,green,blue (an empty name skips one).
        unit: unit of the file's coordinates; the mesh is in meters.
        up: axis that points up in the file; the mesh has z up.
        use_vertices: vertices of a mesh file as points.
        keep_classes: LAS classes to read, such as 2 6; all but the dropped ones by default.
        drop_classes: LAS classes to leave out; 7 and 18 are noise.
        keep_withheld: points that a LAS file marks as withheld as well.
        returns: LAS returns to read.
        stations: scanner positions X,Y,Z in the file's coordinates, for files that do not store them; of several, each
            point is taken to be seen from the nearest one.

    Raises:
        SettingError: if a value is not allowed.
    """

    columns: tuple[str, ...] = field(default=(), metadata={"is_one_word": True})
    unit: Unit = "m"
    up: Literal["x", "y", "z"] = "z"
    use_vertices: bool = False
    keep_classes: tuple[int, ...] = ()
    drop_classes: tuple[int, ...] = NOISE_CLASSES
    keep_withheld: bool = False
    returns: Literal["all", "first", "last"] = "all"
    stations: tuple[tuple[float, float, float], ...] = field(default=(), metadata={"flag": "station"})

    def __post_init__(self) -> None:
        check_choices(self)
        if any(not 0 <= value <= 255 for value in (*self.keep_classes, *self.drop_classes)):
            raise SettingError("LAS classes are whole numbers from 0 to 255")
        for place in self.stations:
            if len(place) != 3 or not all(map(math.isfinite, place)):
                raise SettingError(
                    f"a station is three finite numbers X,Y,Z, not {','.join(map(str, place))}"
                )

    @property
    def rotation(self) -> NDArray[np.float64]:
        """(3, 3) matrix that turns the file's axes upright."""
        import numpy as np

        return np.array(UPRIGHT[self.up])

    @property
    def leaves_frame(self) -> bool:
        """Whether points keep the coordinates that the file has."""
        return self.unit == "m" and self.up == "z"
