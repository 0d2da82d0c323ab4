"""Looks at labelled pictures: values found, void share, class histogram, sizes, warnings, contact sheet.

python tools/inspect_data.py --dataset_dir=records/camvid --contact_sheet=camvid.png
python tools/inspect_data.py --dataset=folder --source_dir=mine
"""

import pathlib

from absl import flags
from rich.console import Console

from nas_seg.datasets import camvid, folder, inspect
from nas_seg.datasets.descriptors import DatasetDescriptor, read_descriptor
from nas_seg.utils import app
from nas_seg.utils.errors import InputError, unknown

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset_dir", None, "Records that tools/build_data.py wrote; or else:")
flags.DEFINE_string("dataset", None, "Pictures as they are: camvid or folder, in source_dir.")
flags.DEFINE_string("source_dir", None, "Folder of the pictures, with --dataset.")
flags.DEFINE_string("split", None, "The split to look at (default: all).")
flags.DEFINE_string("contact_sheet", None, "PNG file to write: pictures beside their coloured labels.")
flags.DEFINE_integer("show", 6, "Pairs a split on the contact sheet.", lower_bound=1)
flags.DEFINE_list("class_names", [], "With --dataset=folder: names of classes 0, 1, ... (default: classes.json).")
flags.DEFINE_integer("num_classes", None, "With --dataset=folder: how many classes (default: any value is one).")
flags.DEFINE_integer("ignore_label", None, "With --dataset=folder: label that is left out (default: 255).")


def _read_folder():
    classes_file = (pathlib.Path(FLAGS.source_dir) / folder.CLASSES_FILE).exists()
    any_value = None if FLAGS.class_names or classes_file else 256
    return folder.read_source(
        FLAGS.source_dir,
        num_classes=FLAGS.num_classes or any_value,
        class_names=FLAGS.class_names,
        ignore_label=FLAGS.ignore_label,
    )


_SOURCES = {"camvid": lambda: camvid.read_source(FLAGS.source_dir), "folder": _read_folder}


def _open() -> tuple[DatasetDescriptor, dict]:
    """The descriptor, and the samples of each split."""
    if bool(FLAGS.dataset_dir) == bool(FLAGS.dataset):
        raise InputError("--dataset_dir: expected it or --dataset with --source_dir, and not both")
    if FLAGS.dataset_dir:
        descriptor = read_descriptor(FLAGS.dataset_dir)
        return descriptor, {name: inspect.read_records(FLAGS.dataset_dir, name) for name in descriptor.splits}
    if FLAGS.dataset not in _SOURCES:
        raise InputError(f"--dataset: {unknown('dataset', FLAGS.dataset, _SOURCES)}")
    if not FLAGS.source_dir:
        raise InputError(f"--source_dir: expected the folder of the pictures of --dataset={FLAGS.dataset}")
    source = _SOURCES[FLAGS.dataset]()
    return source.descriptor, {name: inspect.read_pairs(pairs) for name, pairs in source.splits.items()}


def main() -> None:
    """Reads the flags, looks at every split, prints and writes what was found."""
    descriptor, splits = _open()
    if FLAGS.split:
        if FLAGS.split not in splits:
            raise InputError(f"--split: {unknown('split', FLAGS.split, splits)}")
        splits = {FLAGS.split: splits[FLAGS.split]}
    console = Console()
    reports = {}
    for name, samples in splits.items():
        reports[name] = report = inspect.inspect(samples, descriptor, show=FLAGS.show if FLAGS.contact_sheet else 0)
        if report.counts:
            console.print(inspect.histogram(report, descriptor, f"{descriptor.name}, {name}"))
        for line in inspect.describe(report, descriptor):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print()
    if FLAGS.contact_sheet:
        inspect.write_contact_sheet(FLAGS.contact_sheet, reports, descriptor)
        print(f"written: {FLAGS.contact_sheet}")


if __name__ == "__main__":
    app.run(main)
