r"""Writes TFRecords and dataset.json from labelled pictures.

python tools/build_data.py --dataset=pascal_voc_seg --source_dir=VOCdevkit --output_dir=records/voc
python tools/build_data.py --dataset=cityscapes --source_dir=folder_with_the_zips --output_dir=records/cityscapes
python tools/build_data.py --dataset=folder --source_dir=mine --output_dir=records/mine --class_names=road,car
python tools/build_data.py --dataset=tfds:oxford_iiit_pet --output_dir=records/pets --label_values=1:0,2:1,3:2 \
    --num_classes=3
python tools/build_data.py --dataset=synthetic --output_dir=records/streets --num_images=240,60
python tools/build_data.py --dataset=records --source_dir=shards_of_DeepLab --classes=pascal_voc_seg

The same command goes on where it was stopped. The last one writes dataset.json beside shards that have none.
"""

from absl import flags

from nas_seg.datasets import build_data, catalog, describe
from nas_seg.datasets.classes import read_classes
from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, f"{catalog.help_text()}; records: shards that lack dataset.json.")
flags.DEFINE_string("output_dir", None, "Folder to write; it must not exist or be empty.")
flags.DEFINE_integer("num_shards", None, "Files a split (default: 4, cityscapes: 10).", lower_bound=1)
flags.DEFINE_boolean("overwrite", False, "Replace records written into output_dir before.")
flags.DEFINE_boolean("skip_corrupt", False, "Leave out pictures that are refused otherwise; lists and counts them.")
for _name, _argument in catalog.ARGUMENTS.items():
    getattr(flags, f"DEFINE_{_argument.kind}")(_name, None, _argument.help)


def _build(given: dict) -> DatasetDescriptor:
    if not FLAGS.output_dir:
        raise InputError("--output_dir: expected a folder to write")
    if FLAGS.dataset.startswith(catalog.TFDS):
        app.import_tensorflow()
    source = catalog.open_source(FLAGS.dataset, given)
    for notice in source.notices:
        print(f"notice: {notice}")
    app.import_tensorflow()
    return build_data.build(
        source,
        FLAGS.output_dir,
        num_shards=FLAGS.num_shards,
        overwrite=FLAGS.overwrite,
        skip_corrupt=FLAGS.skip_corrupt,
        tell=lambda text: print(f"notice: {text}"),
    )


def _describe(given: dict) -> DatasetDescriptor:
    for name in ("output_dir", "num_shards", "skip_corrupt"):
        if FLAGS[name].present:
            raise InputError(
                f"--{name}: means nothing to --dataset={catalog.RECORDS}: dataset.json goes beside the shards"
            )
    if not given.get("source_dir"):
        raise InputError("--source_dir: expected the folder of the shards")
    folder = given.pop("source_dir")
    classes = read_classes(**given, where=folder).describe(given.get("classes") or "records")
    app.import_tensorflow()
    return describe.write_descriptor(folder, classes, overwrite=FLAGS.overwrite)


def main() -> None:
    """Reads the flags, writes the records, says what was written."""
    given = {name: FLAGS[name].value for name in catalog.ARGUMENTS if FLAGS[name].present}
    catalog.check(FLAGS.dataset, given)
    written = FLAGS.output_dir if FLAGS.dataset != catalog.RECORDS else given.get("source_dir")
    descriptor = _describe(given) if FLAGS.dataset == catalog.RECORDS else _build(given)
    print(f"{descriptor.name}: {descriptor.num_classes} classes, ignore_label {descriptor.ignore_label}")
    for name, info in descriptor.splits.items():
        labels = "" if info.has_labels else ", no labels"
        print(f"  {name}: {info.num_images} images in {info.num_shards} files{labels}, digest {info.digest}")
    print(f"written: {written}")
    print(f"next: python tools/inspect_data.py --dataset_dir={written}")


if __name__ == "__main__":
    app.run(main)
