"""Writes TFRecords and dataset.json from labelled pictures.

python tools/build_data.py --dataset=camvid --source_dir=CamVid --output_dir=records/camvid
python tools/build_data.py --dataset=folder --source_dir=mine --output_dir=records/mine --class_names=road,car
python tools/build_data.py --dataset=synthetic --output_dir=records/streets --num_images=240,60
"""

from absl import flags

from nas_seg.datasets import build_data, camvid, folder, synthetic
from nas_seg.utils import app
from nas_seg.utils.errors import InputError, unknown

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "What to read: camvid, folder (your own images and labels) or synthetic.")
flags.DEFINE_string("source_dir", None, "Folder of the pictures (camvid, folder).")
flags.DEFINE_string("output_dir", None, "Folder to write; it must not exist or be empty.")
flags.DEFINE_integer("num_shards", build_data.NUM_SHARDS, "Files a split.", lower_bound=1)
flags.DEFINE_boolean("overwrite", False, "Replace records written into output_dir before.")
flags.DEFINE_list("class_names", [], "folder: names of classes 0, 1, ...; default: classes.json in source_dir.")
flags.DEFINE_integer("num_classes", None, "folder: how many classes, when they have no names.")
flags.DEFINE_integer("ignore_label", None, "folder: label to leave out of loss and score (default: 255).")
flags.DEFINE_float("val_fraction", 0.2, "folder: share of val, when source_dir is not cut into splits.")
flags.DEFINE_list("num_images", ["240", "60"], "synthetic: pictures of train, val and, if given, test.")
flags.DEFINE_list("image_size", ["192", "256"], "synthetic: height,width in pixels.")
flags.DEFINE_integer("seed", 0, "folder: draws val; synthetic: draws the scenes.", lower_bound=0)


def _integers(name: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    values = FLAGS[name].value
    try:
        numbers = tuple(int(value) for value in values)
    except ValueError:
        numbers = ()
    if len(numbers) not in counts or min(numbers) < 1:
        raise InputError(f"--{name}: expected {' or '.join(map(str, counts))} positive integers, received {values}")
    return numbers


def _source_dir() -> str:
    if not FLAGS.source_dir:
        raise InputError(f"--source_dir: expected the folder of the pictures of --dataset={FLAGS.dataset}")
    return FLAGS.source_dir


# dataset -> (the flags that mean something to it, how it is read)
_SOURCES = {
    "camvid": (("source_dir",), lambda: camvid.read_source(_source_dir())),
    "folder": (
        ("source_dir", "class_names", "num_classes", "ignore_label", "val_fraction", "seed"),
        lambda: folder.read_source(
            _source_dir(),
            num_classes=FLAGS.num_classes,
            class_names=FLAGS.class_names,
            ignore_label=FLAGS.ignore_label,
            val_fraction=FLAGS.val_fraction,
            seed=FLAGS.seed,
        ),
    ),
    "synthetic": (
        ("num_images", "image_size", "seed"),
        lambda: synthetic.make_source(_integers("num_images", (2, 3)), _integers("image_size", (2,)), FLAGS.seed),
    ),
}


def main() -> None:
    """Reads the flags, writes the records, says what was written."""
    if FLAGS.dataset not in _SOURCES:
        raise InputError(f"--dataset: {unknown('dataset', FLAGS.dataset, _SOURCES)}")
    if not FLAGS.output_dir:
        raise InputError("--output_dir: expected a folder to write")
    mine, read = _SOURCES[FLAGS.dataset]
    for name in sorted({name for names, _ in _SOURCES.values() for name in names} - set(mine)):
        if FLAGS[name].present:
            raise InputError(f"--{name}: means nothing to --dataset={FLAGS.dataset}")
    app.import_tensorflow()
    descriptor = build_data.build(read(), FLAGS.output_dir, num_shards=FLAGS.num_shards, overwrite=FLAGS.overwrite)
    print(f"{descriptor.name}: {descriptor.num_classes} classes, ignore_label {descriptor.ignore_label}")
    for name, info in descriptor.splits.items():
        labels = "" if info.has_labels else ", no labels"
        print(f"  {name}: {info.num_images} images in {info.num_shards} files{labels}, digest {info.digest}")
    print(f"written: {FLAGS.output_dir}")
    print(f"next: python tools/inspect_data.py --dataset_dir={FLAGS.output_dir}")


if __name__ == "__main__":
    app.run(main)
