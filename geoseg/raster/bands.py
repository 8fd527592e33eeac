"""Names of bands: from descriptions, colour interpretation, and what the user states.

Names follow the STAC `eo` common names (blue, green, red, nir, swir16, swir22, ...). A name is only translated where
the whole set of names leaves no doubt which sensor is meant: "B04" is red for Sentinel-2, "B4" may be near infrared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

SENTINEL_2 = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge071",
    "B06": "rededge075",
    "B07": "rededge078",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
}
LANDSAT_OLI = {  # Landsat 8 and 9, Collection 2 surface reflectance
    "SR_B1": "coastal",
    "SR_B2": "blue",
    "SR_B3": "green",
    "SR_B4": "red",
    "SR_B5": "nir",
    "SR_B6": "swir16",
    "SR_B7": "swir22",
}
LANDSAT_TM = {  # Landsat 4, 5 and 7: no SR_B6
    "SR_B1": "blue",
    "SR_B2": "green",
    "SR_B3": "red",
    "SR_B4": "nir",
    "SR_B5": "swir16",
    "SR_B7": "swir22",
}
SYNONYMS = {
    "coastalaerosol": "coastal",
    "aerosol": "coastal",
    "nearinfrared": "nir",
    "nearir": "nir",
    "infrared": "nir",
    "swir1": "swir16",
    "swir2": "swir22",
    "shortwaveinfrared1": "swir16",
    "shortwaveinfrared2": "swir22",
    "panchromatic": "pan",
}
COMMON = {"coastal", "blue", "green", "red", "rededge", "nir", "nir08", "nir09", "swir16", "swir22", "pan", "cirrus"}
COLORS = {"red", "green", "blue", "nir", "coastal", "rededge", "pan"}  # of GDAL's colour interpretations

_SENTINEL_2_NAME = re.compile(r"^B(0?[1-9]|1[0-2]|8A)(?=$|[\s,_(])", re.IGNORECASE)
_SENTINEL_2_IN_FILE_NAME = re.compile(r"(?:^|_)(B(?:0[1-9]|1[0-2]|8A))(?=$|_)")


def band_names(
    descriptions: Sequence[str | None], colors: Sequence[str], numbers: Sequence[int], *, taken: Sequence[str] = ()
) -> list[str]:
    """One name per band, all different: from descriptions, else colours, else band_1, band_2, ...

    Args:
        descriptions: what the file says of each band, or None.
        colors: GDAL's colour interpretation of each band; it counts where there is no description.
        numbers: by which `--bands` knows each band.
        taken: names that other bands have.
    """
    described = common_names([(text or "").strip() for text in descriptions])
    counts = Counter(colors)
    names = []
    for name, color, number in zip(described, colors, numbers, strict=True):
        speaks = color in COLORS and counts[color] == 1 and color not in described
        name = name or (color if speaks else "")
        names.append(f"band_{number}" if not name or name in taken else name)
    return _different([*taken, *names])[len(taken) :]


def common_names(names: Sequence[str]) -> list[str]:
    """Sensor names and synonyms as common names; every other name as it is, empty ones empty."""
    given = [name for name in names if name]
    sensor = _sensor(given)
    translated = [sensor.get(_code(name), "") or _synonym(name) for name in names]
    if "nir08" in translated and "nir" not in translated and not sensor:
        return ["nir" if name == "nir08" else name for name in translated]  # STAC's word for Landsat's only NIR
    return translated


def _sensor(names: Sequence[str]) -> Mapping[str, str]:
    """The table of the sensor that the set of names clearly belongs to, or an empty one."""
    codes = [_SENTINEL_2_NAME.match(name) for name in names]
    marks = [code for code in codes if code is not None]
    clear = any(code[0].upper().startswith("B0") or code[0].upper() == "B8A" for code in marks)
    if marks and (clear or any("wavelength" in name for name in names)):
        return SENTINEL_2
    landsat = {name.upper() for name in names if re.fullmatch(r"SR_B[1-7]", name.upper())}
    if "SR_B6" in landsat:
        return LANDSAT_OLI
    return LANDSAT_TM if {"SR_B5", "SR_B7"} <= landsat else {}


def _code(name: str) -> str:
    match = _SENTINEL_2_NAME.match(name)
    if match is None:
        return name.upper()
    code = match[0].upper()
    return code if code == "B8A" or len(code) == 3 else f"B0{code[1:]}"


def _synonym(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    plain = SYNONYMS.get(plain, plain)
    return plain if plain in COMMON else name


def name_in_file_name(stem: str) -> str | None:
    """The Sentinel-2 band in a file name such as T33UUP_20200601T101031_B04_10m, or None."""
    match = _SENTINEL_2_IN_FILE_NAME.search(stem)
    return match[1] if match else None


def _different(names: Sequence[str]) -> list[str]:
    """The names with _2, _3, ... behind those that came before."""
    found: list[str] = []
    for name in names:
        candidate, count = name, 1
        while candidate in found:
            count += 1
            candidate = f"{name}_{count}"
        found.append(candidate)
    return found
