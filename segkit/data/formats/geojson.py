"""GeoJSON polygons over GeoTIFF pictures. Needs rasterio."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Optional

import numpy as np

from segkit.data.formats.base import (
    Labelled,
    Photo,
    ReadOptions,
    is_background,
    natural,
    numbers_of,
    tidy_names,
    unknown_labels,
)
from segkit.data.formats.files import lines_of, names_file, part_of, shown, walk
from segkit.data.formats.labelme import read_json
from segkit.errors import InputError

NAME = "geojson"
_PROPERTIES = ("class", "label", "class_name", "classname", "name", "category", "type", "landcover", "id")
_ENDS = (".geojson", ".json")


def detect(source: Path, images: Optional[str] = None) -> tuple[float, str]:
    """How sure (0 to 1), and why."""
    count = len(_files(source))
    return (0.9 if count else 0.0), f"{count} GeoJSON files"


def _files(source: Path) -> list[tuple[Path, dict]]:
    found = []
    for path in [source] if source.is_file() else walk(source, _ENDS):
        try:
            data = read_json(path)
        except InputError:
            continue
        if isinstance(data, dict) and data.get("type") == "FeatureCollection":
            found.append((path, data))
    return found


def read(source: Path, options: ReadOptions) -> Labelled:
    """A GeoTIFF takes the features of the GeoJSON of its name, or, where there is just one GeoJSON, of that one."""
    _rasterio()
    root = source if source.is_dir() else source.parent
    files = _files(source)
    pictures = walk(Path(options.images) if options.images else root, (".tif", ".tiff"))
    if not files or not pictures:
        raise InputError(
            f"{source}: {len(files)} GeoJSON files and {len(pictures)} GeoTIFF pictures (expected some of both). "
            "Put them together, or give the folder of the pictures with --images."
        )
    key = options.class_property or _property(files, source)
    found: dict[str, list[str]] = {}
    for path, data in files:
        for feature in data.get("features") or []:
            label = _label(feature, key)
            if label is not None:
                found.setdefault(label, []).append(shown(path, root))
    given = names_file(options.class_names, root)
    if given is not None:
        names = tidy_names(lines_of(given), str(given))
    else:
        names = tidy_names(sorted((name for name in found if not is_background(name)), key=natural), str(root))
    numbers = numbers_of(names)
    notes = [f"class of a feature: its property '{key}'", *unknown_labels(found, numbers, str(given), options.unknown)]
    by_stem = {path.stem.lower(): (path, data) for path, data in files}
    photos, problems = [], []
    for picture in pictures:
        path, data = by_stem.get(picture.stem.lower(), files[0] if len(files) == 1 else (None, None))
        where = shown(picture, root)
        if path is None:
            problems.append(f"{where}: no GeoJSON of its name. Add it, or take the picture out.")
            continue
        draw = functools.partial(_draw, picture, data, key, numbers)
        photos.append(Photo(picture.stem, picture, draw, where, part_of(picture.relative_to(picture.parent.parent))))
    return Labelled(names, photos, problems, notes)


def _property(files: list[tuple[Path, dict]], source: Path) -> str:
    """The property that holds the class: the first usual one that all features have."""
    features = [feature for _, data in files for feature in data.get("features") or []]
    every = [set(feature.get("properties") or {}) for feature in features]
    for wanted in _PROPERTIES:
        for name in sorted(every[0]) if every else ():
            if name.lower() == wanted and all(name in keys for keys in every):
                return name
    listed = ", ".join(sorted(set().union(*every))) or "none"
    raise InputError(
        f"{source}: which property of the features is the class? (got {listed}.) Say it with --class_property."
    )


def _label(feature: dict, key: str) -> Optional[str]:
    value = (feature.get("properties") or {}).get(key)
    return None if value is None else str(value)


def _rasterio() -> Any:
    try:
        import rasterio
    except ImportError as error:
        raise InputError(
            f"GeoJSON labels need rasterio ({error}). Install it: pip install rasterio (the extra geo)"
        ) from error
    return rasterio


def _draw(picture: Path, data: dict, key: str, numbers: dict[str, int]) -> np.ndarray:
    """uint8 [H, W]: features in the order of the list, brought to the picture's coordinates."""
    rasterio = _rasterio()
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    named = ((data.get("crs") or {}).get("properties") or {}).get("name", "EPSG:4326")
    try:
        with rasterio.open(picture) as file:
            if file.crs is None:
                raise InputError("the picture has no coordinates (no CRS in the TIFF). Save it as a GeoTIFF.")
            shapes = []
            for feature in data.get("features") or []:
                label, geometry = _label(feature, key), feature.get("geometry")
                if label is None or not geometry or geometry.get("type") not in ("Polygon", "MultiPolygon"):
                    raise InputError(
                        f"a feature without polygon or without '{key}' (got {(geometry or {}).get('type')}, {label}). "
                        "Mend it in the GeoJSON."
                    )
                shapes.append((transform_geom(named, file.crs, geometry), numbers[label]))
            size, transform = (file.height, file.width), file.transform
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError) as error:
        raise InputError(f"cannot be read ({error}). Mend the picture or its coordinates.") from None
    if not shapes:
        return np.full(size, numbers["_background_"], np.uint8)
    return rasterize(shapes, size, fill=numbers["_background_"], transform=transform, dtype="uint8")
