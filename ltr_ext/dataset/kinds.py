"""What each data set looks like on disk and which parts it has.

Facts of the distributions, not of this project: folder and file names, the meaning of label files,
official numbers of sequences. Where a distribution exists in several forms, all are listed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .base import Layout


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        folders: where its sequences may lie, relative to the root; the first pattern that matches
            counts, and all folders that it matches; ``.`` is the root itself.
        lists: files with the names of its sequences, relative to the root or the folder.
        others: files with the names of sequences of the other parts, which are left out when none
            of ``lists`` exists.
        needs_list: a root with more than ``count`` sequences holds other parts as well, and a list
            is needed to tell them apart.
        count: official number of sequences, None where there is no such thing.
        layout: if it differs from that of the other parts.
    """

    folders: tuple[str, ...]
    lists: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    needs_list: bool = False
    count: int | None = None
    layout: Layout | None = None


@dataclass(frozen=True)
class Kind:
    """A data set as distributed."""

    layout: Layout
    splits: dict[str, Split]


_GROUND_TRUTH = ("groundtruth.txt",)
_RGBD = Layout(rgb=("color",), aux=("depth",), annotation=_GROUND_TRUTH, modality="depth")
_RGBT = Layout(
    rgb=("visible",),
    aux=("infrared",),
    annotation=("visible.txt", "init.txt", "groundtruth.txt"),
    modality="thermal",
    extra_boxes=(("infrared", "infrared.txt"),),
)
# absent_label.txt and absent.txt: 1 where the target can be seen, in spite of their names
_VISEVENT = Layout(
    rgb=("vis_imgs",),
    aux=("event_imgs",),
    annotation=_GROUND_TRUTH,
    modality="event",
    presence=(("absent_label.txt", 1),),
    counted=True,
)
_COESOT = Layout(
    rgb=("{name}_aps", "color_frames", "img"),
    aux=("{name}_dvs", "event_frames", "evimg"),
    annotation=_GROUND_TRUTH,
    modality="event",
    presence=(("absent.txt", 1),),
    counted=True,
)
_FE108 = Layout(
    rgb=("img",),
    aux=("evimg", "event_imgs", "events"),
    annotation=("groundtruth_rect.txt",),
    modality="event",
)
# Trackers learn from no box of a pixel or two; the benchmarks' scripts score every box. The limits
# are those of the public SRFT code.
_LEAST, _LEAST_OF_EVENTS = 2, 1
_GOT10K = Layout(rgb=(".",), annotation=_GROUND_TRUTH, presence=(("absence.label", 0),))
_TRACKINGNET = Layout(rgb=(".",), annotation=("../../anno/{name}.txt",))

KINDS: dict[str, Kind] = {
    # RGB-D
    "depthtrack": Kind(
        _RGBD,
        {
            "train": Split(
                ("train", "."),
                ("list.txt",),
                count=152,
                layout=replace(_RGBD, minimum_side=_LEAST),
            ),
            "test": Split(("test", "."), ("list.txt",), count=50),
        },
    ),
    "cdtb": Kind(_RGBD, {"test": Split(("sequences", "."), ("list.txt",), count=80)}),
    "vot_rgbd2022": Kind(_RGBD, {"test": Split(("sequences", "."), ("list.txt",), count=127)}),
    # RGB-T
    "lasher": Kind(
        _RGBT,
        {
            "train": Split(
                ("trainingset", "[Tt]raining[Ss]et/[Tt]rainingset", "train"),
                ("trainingsetList.txt",),
                count=979,
                layout=replace(_RGBT, minimum_side=_LEAST),
            ),
            "test": Split(
                ("testingset", "[Tt]esting[Ss]et/[Tt]estingset", "test"),
                ("testingsetList.txt",),
                count=245,
            ),
        },
    ),
    "gtot": Kind(
        Layout(
            rgb=("v",),
            aux=("i",),
            annotation=("groundTruth_v.txt",),
            modality="thermal",
            extra_boxes=(("infrared", "groundTruth_i.txt"),),
            corners=True,
        ),
        {"test": Split(("GTOT", "."), count=50)},
    ),
    "rgbt234": Kind(_RGBT, {"test": Split(("RGBT234", "."), ("list.txt",), count=234)}),
    # RGB-E
    "visevent": Kind(
        _VISEVENT,
        {
            "train": Split(
                ("train_subset", "train"),
                ("trainlist.txt",),
                count=500,
                layout=replace(_VISEVENT, minimum_side=_LEAST_OF_EVENTS),
            ),
            "test": Split(("test_subset", "test"), ("testlist.txt",), count=320),
        },
    ),
    "coesot": Kind(
        _COESOT,
        {
            "train": Split(
                ("train", "Training Subset", "training_subset"),
                ("trainlist.txt", "list.txt"),
                count=827,
                layout=replace(_COESOT, minimum_side=_LEAST_OF_EVENTS),
            ),
            "test": Split(
                ("test", "Testing Subset", "testing_subset"),
                ("testlist.txt", "list.txt"),
                count=528,
            ),
        },
    ),
    "fe108": Kind(
        _FE108,
        {
            "train": Split(
                ("train", "."),
                ("train.txt",),
                ("test.txt",),
                needs_list=True,
                count=76,
                layout=replace(_FE108, minimum_side=_LEAST_OF_EVENTS),
            ),
            "test": Split(("test", "."), ("test.txt",), ("train.txt",), needs_list=True, count=32),
        },
    ),
    # RGB
    "lasot": Kind(
        Layout(
            rgb=("img",),
            annotation=_GROUND_TRUTH,
            presence=(("full_occlusion.txt", 0), ("out_of_view.txt", 0)),
        ),
        {
            "train": Split(
                (".",), ("training_set.txt",), ("testing_set.txt",), needs_list=True, count=1120
            ),
            "test": Split((".",), ("testing_set.txt",), needs_list=True, count=280),
        },
    ),
    "got10k": Kind(
        _GOT10K,
        {
            "train": Split(("train",), ("list.txt",), count=9335),
            "val": Split(("val",), ("list.txt",), count=180),
            "test": Split(
                ("test",), ("list.txt",), count=180, layout=replace(_GOT10K, init_only=True)
            ),
        },
    ),
    "trackingnet": Kind(
        _TRACKINGNET,
        {
            "train": Split(("TRAIN_*/frames",), count=30132),
            "test": Split(
                ("TEST/frames",), count=511, layout=replace(_TRACKINGNET, init_only=True)
            ),
        },
    ),
    "tnl2k": Kind(
        Layout(rgb=("imgs",), annotation=_GROUND_TRUTH),
        {
            "train": Split(("train", "TNL2K_train_subset"), count=1300),
            "test": Split(("test", "TNL2K_test_subset"), count=700),
        },
    ),
    "otb": Kind(
        Layout(rgb=("img",), annotation=("groundtruth_rect.txt",), first_pixel=1, cut_tail=True),
        {"test": Split((".",), count=100)},
    ),
    "uav123": Kind(
        Layout(rgb=(".",), annotation=("../../../anno/UAV123/{name}.txt",), first_pixel=1),
        {"test": Split(("data_seq/UAV123",), count=123)},
    ),
    "vot": Kind(
        Layout(rgb=("color", "."), annotation=_GROUND_TRUTH),
        {"test": Split(("sequences", "."), ("list.txt",))},
    ),
}
