"""Objects of scenes -> GeoJSON, GeoPackage, CSV, COCO JSON and a QGIS style."""

from __future__ import annotations

import csv
import io
import json
import os
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry import mapping

from sar_experiments.geometry import WGS84
from sar_experiments.run_folder import write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sar_experiments.predict.detector import SceneHeader
    from sar_experiments.predict.objects import SceneObject
    from sar_experiments.predict.runner import ScenePrediction

DETECTIONS = "detections"
FILTERED = "filtered"
OUTCOMES = "outcomes"

# Column -> its type in a GeoPackage, in the order of every table.
COLUMNS: dict[str, type] = {
    "scene": str,
    "class": str,
    "score": float,
    "lon": float,
    "lat": float,
    "length_m": float,
    "width_m": float,
    "axis_deg": float,
    "left_px": float,
    "top_px": float,
    "right_px": float,
    "bottom_px": float,
    "time": str,
    "file": str,
    "reason": str,
}

Outcome = tuple["SceneObject", "SceneHeader", str]
"""An object of a scene, and whether it is a hit, a false alarm, a miss, or counts aside."""

OUTCOME_NAMES = ("hit", "false alarm", "miss", "aside")

_MEASURED = ("lon", "lat", "length_m", "width_m", "axis_deg")

COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
    (0, 128, 128),
)
"""Of classes, red, green, blue; told apart with most kinds of colour blindness."""

OUTCOME_COLOURS = ((60, 180, 75), (230, 25, 75), (255, 225, 25), (160, 160, 160))
"""Green, red, yellow and gray, in the order of OUTCOME_NAMES."""

_DEGREE_DIGITS = 8  # a millimetre


def write_outputs(
    predictions: Sequence[ScenePrediction], folder: Path, *, outputs: Sequence[str]
) -> list[Path]:
    """Write the tables and maps of all scenes, each file whole or not at all.

    GeoJSON and GeoPackage hold the scenes with geo-reference; without any there is none. What was
    filtered lies beside what was kept: in filtered.geojson, filtered.csv, and a layer of its own.

    Returns:
        The files.
    """
    written: list[Path] = []
    has_places = any(each.header.georeference is not None for each in predictions)
    filtered = any(each.filtered for each in predictions)
    kinds = [DETECTIONS, FILTERED] if filtered else [DETECTIONS]
    for kind in kinds:
        rows = list(_rows(predictions, kind))
        if "geojson" in outputs and has_places:
            written.append(folder / f"{kind}.geojson")
            write_json_text(written[-1], _collection(_located(rows)))
        if "csv" in outputs:
            written.append(folder / f"{kind}.csv")
            write_atomically(written[-1], _csv(rows))
    if "gpkg" in outputs and has_places:
        written.append(folder / f"{DETECTIONS}.gpkg")
        _write_geopackage(written[-1], {kind: list(_rows(predictions, kind)) for kind in kinds})
    if "coco" in outputs:
        written.append(folder / f"{DETECTIONS}_coco.json")
        write_json(written[-1], as_coco(predictions))
    if "qgis" in outputs and has_places:
        written.append(folder / f"{DETECTIONS}.qml")
        write_atomically(written[-1], qgis_style(predictions[0].classes))
    return written


def write_outcomes(folder: Path, outcomes: Sequence[Outcome]) -> list[Path]:
    """Write what became of each object as outcomes.csv and, on the Earth, outcomes.geojson.

    Objects that were missed stand there with the box of the truth and without a score.

    Returns:
        The files, a QGIS style that colours by outcome among them.
    """
    rows = []
    for found, header, outcome in outcomes:
        row = {"outcome": outcome, **_row(found, header, DETECTIONS)}
        rows.append((found, {**row, "score": None} if outcome == "miss" else row))
    written = [folder / f"{OUTCOMES}.csv"]
    names = ["outcome", *(name for name in COLUMNS if name != "reason")]
    write_atomically(written[0], _csv(rows, names))
    if _located(rows):
        written += [folder / f"{OUTCOMES}.geojson", folder / f"{OUTCOMES}.qml"]
        write_json_text(written[1], _collection(_located(rows)))
        write_atomically(written[2], qgis_style(OUTCOME_NAMES, attribute="outcome"))
    return written


def write_json_text(path: Path, content: object) -> None:
    """Write JSON on as few lines as a map of many objects should have."""
    write_atomically(path, json.dumps(content, allow_nan=False) + "\n")


def as_geojson(
    predictions: Sequence[ScenePrediction], *, filtered: bool = False, unlocated: bool = False
) -> dict[str, Any]:
    """Return a FeatureCollection after RFC 7946: WGS84, longitude first, rings counter-clockwise.

    Args:
        predictions: Of any number of scenes.
        filtered: Return what was filtered instead of what was kept.
        unlocated: Keep objects of scenes without geo-reference, as features whose geometry is
            null (RFC 7946, 3.2); else they have no place in it.
    """
    rows = list(_rows(predictions, FILTERED if filtered else DETECTIONS))
    return _collection(rows if unlocated else _located(rows))


def as_coco(predictions: Sequence[ScenePrediction]) -> dict[str, Any]:
    """Return a COCO dataset of what was kept; annotations carry a score, and place, size and axis.

    These are null without geo-reference.
    """
    classes = list(dict.fromkeys(name for each in predictions for name in each.classes))
    annotations: list[dict[str, Any]] = []
    for image_id, prediction in enumerate(predictions, start=1):
        for each in prediction.objects:
            left, top, right, bottom = each.box
            row = _row(each, prediction.header, DETECTIONS)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": classes.index(each.class_name) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                    "score": each.score,
                    **{name: row[name] for name in _MEASURED},
                }
            )
    images = [
        {
            "id": image_id,
            "file_name": str(each.header.files[0]),
            "height": each.header.height,
            "width": each.header.width,
        }
        for image_id, each in enumerate(predictions, start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def qgis_style(values: Sequence[str], *, attribute: str = "class") -> str:
    """Return a QGIS layer style: outlines coloured by an attribute, labelled with class and score.

    QGIS applies it by itself to a layer of the same file name.
    """
    colours = OUTCOME_COLOURS if attribute == "outcome" else COLOURS
    categories, symbols = [], []
    for number, name in enumerate(values):
        colour = ",".join(str(each) for each in (*colours[number % len(colours)], 255))
        value = escape(name, quote=True)
        categories.append(
            f'<category value="{value}" label="{value}" symbol="{number}" render="true"/>'
        )
        symbols.append(
            f'<symbol type="fill" name="{number}" alpha="1">'
            '<layer class="SimpleFill" enabled="1"><Option type="Map">'
            '<Option type="QString" name="style" value="no"/>'
            f'<Option type="QString" name="color" value="{colour}"/>'
            f'<Option type="QString" name="outline_color" value="{colour}"/>'
            '<Option type="QString" name="outline_width" value="0.5"/>'
            '<Option type="QString" name="outline_style" value="solid"/>'
            "</Option></layer></symbol>"
        )
    label = "&quot;class&quot; || ' ' || format_number(&quot;score&quot;, 2)"
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22" styleCategories="Symbology|Labeling" labelsEnabled="1">\n'
        f' <renderer-v2 type="categorizedSymbol" attr="{attribute}" enableorderby="0">\n'
        f"  <categories>{''.join(categories)}</categories>\n"
        f"  <symbols>{''.join(symbols)}</symbols>\n"
        " </renderer-v2>\n"
        ' <labeling type="simple"><settings>'
        f'<text-style fieldName="{label}" isExpression="1" fontSize="8" fontSizeUnit="Point"'
        ' textColor="0,0,0,255" textOpacity="1">'
        '<text-buffer bufferDraw="1" bufferSize="0.7" bufferSizeUnits="MM" bufferNoFill="1"'
        ' bufferColor="255,255,255,255" bufferOpacity="1"/></text-style>'
        '<placement placement="8" dist="0.5" distUnits="MM"/>'  # 8: outside the box
        # Of the denominators: from 1:1 to 1:100,000.
        '<rendering scaleVisibility="1" scaleMin="1" scaleMax="100000"/>'
        "</settings></labeling>\n"
        "</qgis>\n"
    )


def _rows(
    predictions: Sequence[ScenePrediction], kind: str
) -> Iterable[tuple[SceneObject, dict[str, Any]]]:
    for prediction in predictions:
        for each in prediction.objects if kind == DETECTIONS else prediction.filtered:
            yield each, _row(each, prediction.header, kind)


def _row(found: SceneObject, header: SceneHeader, kind: str) -> dict[str, Any]:
    lon, lat = found.centre or (None, None)
    values = {
        "scene": header.name,
        "class": found.class_name,
        "score": round(found.score, 4),
        "lon": _rounded(lon, _DEGREE_DIGITS),
        "lat": _rounded(lat, _DEGREE_DIGITS),
        "length_m": _rounded(found.length_m, 1),
        "width_m": _rounded(found.width_m, 1),
        "axis_deg": _rounded(found.axis_deg, 1),
        **dict(
            zip(
                ("left_px", "top_px", "right_px", "bottom_px"),
                (round(each, 2) for each in found.box),
                strict=True,
            )
        ),
        "time": header.time,
        "file": ";".join(str(file) for file in header.files),
        "reason": found.reason,
    }
    if kind == DETECTIONS:
        del values["reason"]
    return values


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


# --- GeoJSON -----------------------------------------------------------------------------------


def _located(
    rows: Sequence[tuple[SceneObject, dict[str, Any]]],
) -> list[tuple[SceneObject, dict[str, Any]]]:
    return [each for each in rows if each[0].corners is not None]


def _collection(rows: Sequence[tuple[SceneObject, dict[str, Any]]]) -> dict[str, Any]:
    features = [
        {
            "type": "Feature",
            "geometry": None if found.corners is None else mapping(_polygon(found)),
            "properties": row,
        }
        for found, row in rows
    ]
    return {"type": "FeatureCollection", "features": features}


def _polygon(found: SceneObject) -> Any:  # noqa: ANN401 - shapely's
    """Return the box on the map; cut in two at the antimeridian, as RFC 7946 (3.1.9) asks."""
    assert found.corners is not None
    ring = np.array([*found.corners, found.corners[0]])
    if np.ptp(ring[:, 0]) < 180.0:  # noqa: PLR2004 - half a turn
        return shapely.Polygon(np.round(ring, _DEGREE_DIGITS))
    ring[:, 0] %= 360.0
    whole = shapely.Polygon(np.round(ring, _DEGREE_DIGITS))
    east = shapely.intersection(whole, shapely.box(0, -90, 180, 90))
    west = shapely.intersection(whole, shapely.box(180, -90, 360, 90))
    west = shapely.transform(west, lambda lonlat: lonlat - [360.0, 0.0])
    return shapely.orient_polygons(shapely.MultiPolygon([east, west]))


# --- Tables ------------------------------------------------------------------------------------


def _csv(
    rows: Sequence[tuple[SceneObject, dict[str, Any]]], names: Sequence[str] | None = None
) -> str:
    text = io.StringIO()
    fields = names or (list(rows[0][1]) if rows else [name for name in COLUMNS if name != "reason"])
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for _, row in rows)
    return text.getvalue()


def _write_geopackage(
    path: Path, layers: dict[str, Sequence[tuple[SceneObject, dict[str, Any]]]]
) -> None:
    import pyogrio  # late: it loads GeoPandas where that is installed, 70 MB

    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.gpkg")
    unfinished.unlink(missing_ok=True)
    try:
        for layer, rows in layers.items():
            placed = [(found, row) for found, row in rows if found.corners is not None]
            names = [name for name in COLUMNS if layer == FILTERED or name != "reason"]
            columns = [_column([row[name] for _, row in placed], COLUMNS[name]) for name in names]
            pyogrio.raw.write(
                unfinished,
                geometry=shapely.to_wkb(
                    np.array([_multi(_polygon(found)) for found, _ in placed], dtype=object)
                ),
                field_data=[values for values, _ in columns],
                field_mask=[mask for _, mask in columns],
                fields=names,
                layer=layer,
                driver="GPKG",
                geometry_type="MultiPolygon",
                crs=WGS84,
            )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _multi(polygon: Any) -> Any:  # noqa: ANN401 - shapely's
    is_multi = isinstance(polygon, shapely.MultiPolygon)
    return polygon if is_multi else shapely.MultiPolygon([polygon])


def _column(values: Sequence[Any], kind: type) -> tuple[Any, Any]:
    """Return an array, and where it is null."""
    mask = np.array([value is None for value in values], dtype=bool)
    if kind is float:
        return np.array([np.nan if v is None else v for v in values], np.float64), mask
    return np.array(["" if v is None else v for v in values], dtype=object), mask
