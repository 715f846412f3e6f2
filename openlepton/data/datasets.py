"""Opening a data set of any layout; which one it is shows in the files that are characteristic of it."""

import posixpath
from pathlib import Path
from typing import get_args

from openlepton.data import paths
from openlepton.data.coco import open_coco
from openlepton.data.folders import open_classes, open_masks
from openlepton.data.samples import Dataset, Layout
from openlepton.data.semantic import open_class_maps
from openlepton.data.tags import find_tables, open_tags
from openlepton.data.voc import FirstPixel, open_voc
from openlepton.data.yolo import CLASS_FILES, YAML_FILES, open_yaml, open_yolo
from openlepton.errors import DataEmpty, DataInvalid, DataNotFound, UsageError


def open_dataset(
    path: str | Path, *, layout: Layout | None = None, shapes: bool = True, voc_first_pixel: FirstPixel = 1
) -> Dataset:
    """Return the data set in a folder, or that a `data.yaml` or a COCO `.json` describes; its labels are read when asked for.

    Args:
        path: The folder or file.
        layout: How it lies on the disk; found out when not given.
        shapes: Whether outlines are kept in memory, where the layout needs them there (COCO).
        voc_first_pixel: What Pascal VOC files call the first column and row.

    Raises:
        DataNotFound: There is no such folder or file.
        DataInvalid: It is of no layout that is read, or a file breaks its format.
        DataEmpty: There is no image in it.
        MissingExtra: It needs PyYAML, which is not installed.
    """
    path = Path(path)
    if layout is not None and layout not in get_args(Layout):
        raise UsageError(f"layout: expected one of {', '.join(get_args(Layout))}, got {layout!r}")
    if path.is_file():
        dataset = _open_file(path, shapes=shapes)
    elif path.is_dir():
        layout = layout or find_layout(path)
        dataset = _open_folder(path, layout, shapes=shapes, voc_first_pixel=voc_first_pixel)
    else:
        raise DataNotFound(f"{path}: no such data set")
    if not any(len(split) for split in dataset.splits.values()):
        hint = f": {dataset.problems[0]}" if dataset.problems else ""
        raise DataEmpty(f"{path}: no images in it ({dataset.layout} layout){hint}")
    return dataset


def find_layout(root: Path) -> Layout:
    """Return the layout of a folder, by the files and folders that are characteristic of each.

    Raises:
        DataInvalid: There are none.
    """
    folders = paths.subfolders(root)
    if paths.subfolder(root, "images") and paths.subfolder(root, "masks") and not paths.subfolder(root, "labels"):
        names = root / "classes.txt"
        return "semantic" if names.is_file() and len(paths.read_classes(names)) > 1 else "masks"
    if _coco_files(root):
        return "coco"
    if _any_file(root, [paths.subfolder(root, "annotations") or "", *paths.split_entries(folders).values()], ".xml"):
        return "voc"
    if find_tables(root):
        return "tags"
    if any((root / name).is_file() for name in (*CLASS_FILES, *YAML_FILES)) or "labels" in folders:
        return "yolo"
    if any(paths.list_images(root, folder) for folder in folders):
        return "classes"
    raise DataInvalid(
        f"{root}: not a data set that is read: expected classes.txt or data.yaml (YOLO), annotations/*.json (COCO), "
        f"Annotations/*.xml (Pascal VOC), images/ and masks/, labels.csv, or a folder of images for each class"
    )


def _open_file(path: Path, *, shapes: bool) -> Dataset:
    if path.suffix.lower() in {".yaml", ".yml"}:
        return open_yaml(path)
    if path.suffix.lower() == ".json":
        nested = path.parent.name.lower() == "annotations"
        root = path.parent.parent if nested else path.parent
        return open_coco(root, [f"{path.parent.name}/{path.name}" if nested else path.name], shapes=shapes)
    raise DataInvalid(f"{path}: expected a folder, a data.yaml or a COCO .json")


def _open_folder(root: Path, layout: Layout, *, shapes: bool, voc_first_pixel: FirstPixel) -> Dataset:
    match layout:
        case "yolo":
            return open_yolo(root)
        case "coco":
            files = _coco_files(root)
            if not files:
                raise DataInvalid(f"{root}: no COCO file: expected annotations/*.json")
            return open_coco(root, files, shapes=shapes)
        case "voc":
            return open_voc(root, voc_first_pixel)
        case "masks":
            return open_masks(root)
        case "semantic":
            return open_class_maps(root)
        case "classes":
            return open_classes(root)
        case "tags":
            return open_tags(root)


def _coco_files(root: Path) -> list[str]:
    """Return the COCO files of a folder: those of instances where they are told from captions and key points."""
    folders = [paths.subfolder(root, "annotations") or "", *paths.split_entries(paths.subfolders(root)).values()]
    found = [
        name for folder in folders for name in paths.list_files(root, folder, deep=False) if name.endswith(".json")
    ]
    found = [name for name in found if _looks_like_coco(root / name)]
    instances = [name for name in found if posixpath.basename(name).startswith("instances_")]
    return instances or found


def _looks_like_coco(file: Path) -> bool:
    """Return whether the start or the end of a file mentions a list that every COCO file has; whole files can be huge."""
    with file.open("rb") as opened:
        text = opened.read(65536)
        opened.seek(max(0, file.stat().st_size - 65536))
        text += opened.read()
    return any(key in text for key in (b'"images"', b'"categories"'))


def _any_file(root: Path, folders: list[str], suffix: str) -> bool:
    return any(name.endswith(suffix) for folder in folders for name in paths.list_files(root, folder, deep=False))
