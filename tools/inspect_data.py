"""Looks at labelled pictures: values, void share, classes, sizes, warnings, contact sheet; what to train them with.

python tools/inspect_data.py --dataset_dir=records/camvid --contact_sheet=camvid.png
python tools/inspect_data.py --dataset=folder --source_dir=mine
"""

from absl import flags
from rich.console import Console

from nas_seg import common
from nas_seg.datasets import catalog, inspect
from nas_seg.datasets.descriptors import DatasetDescriptor, read_descriptor
from nas_seg.utils import app
from nas_seg.utils.errors import InputError, unknown

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset_dir", None, "Records that tools/build_data.py wrote; or else:")
flags.DEFINE_string("dataset", None, f"Pictures as they are. {catalog.help_text()}.")
flags.DEFINE_string("split", None, "The split to look at (default: all).")
flags.DEFINE_string("contact_sheet", None, "PNG file to write: pictures beside their coloured labels.")
flags.DEFINE_integer("show", 6, "Pairs a split on the contact sheet.", lower_bound=1)
flags.DEFINE_boolean(
    "skip_corrupt", False, "Leave out what build_data refuses, also damaged records; list all of it and count it."
)
for _name, _argument in catalog.ARGUMENTS.items():
    getattr(flags, f"DEFINE_{_argument.kind}")(_name, None, f"With --dataset. {_argument.help}")


def _open() -> tuple[DatasetDescriptor, dict]:
    """The descriptor, and the samples of each split."""
    if bool(FLAGS.dataset_dir) == bool(FLAGS.dataset):
        raise InputError("--dataset_dir: expected it or --dataset with --source_dir, and not both")
    given = {name: FLAGS[name].value for name in catalog.ARGUMENTS if FLAGS[name].present}
    if FLAGS.dataset_dir:
        for name in given:
            raise InputError(f"--{name}: means nothing to --dataset_dir")
        descriptor, skip = read_descriptor(FLAGS.dataset_dir), FLAGS.skip_corrupt
        app.import_tensorflow()
        return descriptor, {name: inspect.read_records(FLAGS.dataset_dir, name, skip) for name in descriptor.splits}
    if FLAGS.dataset == catalog.RECORDS:
        raise InputError("--dataset=records: expected --dataset_dir, once tools/build_data.py wrote their dataset.json")
    catalog.check(FLAGS.dataset, given)
    if FLAGS.dataset.startswith(catalog.TFDS):
        app.import_tensorflow()
    source = catalog.open_source(FLAGS.dataset, given, any_value=True)
    for notice in source.notices:
        print(f"notice: {notice}")
    return source.descriptor, {
        name: inspect.read_pairs(pairs, source.coding, source.descriptor) for name, pairs in source.splits.items()
    }


def main() -> None:
    """Reads the flags, looks at every split, prints and writes what was found."""
    descriptor, splits = _open()
    trained_on = [name for name in splits if name.startswith(common.TRAIN_SPLIT)] or list(splits)
    if FLAGS.split:
        if FLAGS.split not in splits:
            raise InputError(f"--split: {unknown('split', FLAGS.split, splits)}")
        splits = {FLAGS.split: splits[FLAGS.split]}
    console = Console()
    reports = {}
    for name, samples in splits.items():
        show = FLAGS.show if FLAGS.contact_sheet else 0
        reports[name] = report = inspect.inspect(samples, descriptor, show, FLAGS.skip_corrupt)
        if report.counts:
            console.print(inspect.histogram(report, descriptor, f"{descriptor.name}, {name}"))
        lines = inspect.describe(report, descriptor, list_corrupt=FLAGS.skip_corrupt)
        if FLAGS.skip_corrupt:
            lines.append(f"skipped: {report.num_refused} of {report.num_images} pictures")
        if name in trained_on:
            lines += [f"suggested: {line}" for line in inspect.suggestions(report, descriptor)]
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print()
    if FLAGS.contact_sheet:
        inspect.write_contact_sheet(FLAGS.contact_sheet, reports, descriptor)
        print(f"written: {FLAGS.contact_sheet}")


if __name__ == "__main__":
    app.run(main)
