"""The passbands of images and of catalogues: the colour that goes with each, and the system of their magnitudes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Passband:
    """A band: its system, its mean wavelength [nm], and the colours that suit it, the best first."""

    system: str
    wavelength: float
    colors: tuple[str, ...]

    @property
    def catalog_bands(self) -> tuple[str, ...]:
        """The bands to calibrate against: itself, then others by distance in wavelength."""
        return tuple(
            sorted(CATALOG_PASSBANDS, key=lambda name: abs(CATALOG_PASSBANDS[name].wavelength - self.wavelength))
        )


_JC = ("B-V", "V-R", "V-I", "g-r", "BP-RP")
_GRI = ("g-r", "r-i", "g-i", "B-V", "BP-RP")
_ZY = ("r-i", "i-z", "g-r", "BP-RP")
_GAIA = ("BP-RP", "g-r", "B-V")
_NIR = ("J-Ks", "J-H", "H-Ks")
PASSBANDS = {
    "U": Passband("Johnson-Cousins", 365, _JC),
    "B": Passband("Johnson-Cousins", 445, _JC),
    "V": Passband("Johnson-Cousins", 551, _JC),
    "R": Passband("Johnson-Cousins", 658, _JC),
    "I": Passband("Johnson-Cousins", 806, _JC),
    "u": Passband("Sloan", 354, _GRI),
    "g": Passband("Sloan", 477, _GRI),
    "r": Passband("Sloan", 623, _GRI),
    "i": Passband("Sloan", 762, _GRI),
    "z": Passband("Sloan", 913, _ZY),
    "y": Passband("Pan-STARRS", 962, _ZY),
    "G": Passband("Gaia", 640, _GAIA),
    "BP": Passband("Gaia", 511, _GAIA),
    "RP": Passband("Gaia", 777, _GAIA),
    "J": Passband("2MASS", 1235, _NIR),
    "H": Passband("2MASS", 1662, _NIR),
    "Ks": Passband("2MASS", 2159, _NIR),
}
_TYCHO = ("BT-VT", "BP-RP", "g-r", "B-V")
# Those of catalogues are more than images have.
CATALOG_PASSBANDS = PASSBANDS | {"BT": Passband("Tycho", 428, _TYCHO), "VT": Passband("Tycho", 532, _TYCHO)}
