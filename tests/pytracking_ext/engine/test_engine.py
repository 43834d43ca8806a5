"""The engine answers what the network answers."""

import copy
import logging
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import Mlp

from ltr_ext.data.crop import box_to_frame
from ltr_ext.data.normalise import normalise
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.synthetic import Synthetic
from ltr_ext.models.checkpoint import BUNDLED, load_network
from ltr_ext.models.two_branch import two_branch_from
from pytracking_ext.analysis.metrics import overlap
from pytracking_ext.engine import Engine, heads, packed, quantised
from pytracking_ext.engine.engine import Turn
from pytracking_ext.parameter.srft import TrackerParameters, in_engine, load
from pytracking_ext.tracker.srft import SRFTTracker
from srft_plugin.errors import UserError

MAPS = ("score_map", "size_map", "offset_map", "pred_boxes")
NATIVE_BF16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
NEEDS_BF16 = pytest.mark.skipif(not NATIVE_BF16, reason="no bfloat16")
NEEDS_INT8 = pytest.mark.skipif(not quantised.available(), reason="no int8 layers")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
LOW = pytest.mark.parametrize(
    ("precision", "device"),
    [
        pytest.param("bfloat16", "cpu", marks=NEEDS_BF16),
        pytest.param("int8", "cpu", marks=NEEDS_INT8),
        pytest.param("bfloat16", "cuda", marks=NEEDS_GPU),
        pytest.param("float16", "cuda", marks=NEEDS_GPU),
    ],
)


def difference(answer, reference):
    return max((answer[name] - reference[name]).abs().max().item() for name in MAPS)


def assert_near(network, answer, reference):
    """As near as a low precision allows, but not the same."""
    # UnTrack swaps tokens by rank: among near equals another one, with a large change there.
    bound = 0.5 if network.spec.name == "untrack256" else 0.1
    changed = (answer["score_map"] - reference["score_map"]).abs()
    assert 0 < changed.mean() < bound * reference["score_map"].std()


@torch.inference_mode()
def test_same_maps_and_boxes_for_every_family(family, images):
    network, engine = family, Engine(family)
    for seed in (1, 2):  # another template each
        inputs = images(network, 2, seed)
        others = list(inputs)
        others[1] = images(network, 2, 3)[1]
        for values in (inputs, others, inputs):  # learned, recalled, recalled
            assert difference(engine(*values), network(*values)) < 1e-5
    one = images(network, 1, 4)  # another batch size
    assert difference(engine(*one), network(*one)) < 1e-5


@torch.inference_mode()
@LOW
def test_low_precision_is_near_for_every_family(precision, device, family_keeping_all, images):
    network = family_keeping_all.to(device)
    inputs = [values.to(device) for values in images(network, 2, 1)]
    answer = Engine(network, precision)(*inputs)
    assert all(answer[key].dtype == torch.float32 for key in MAPS)
    assert_near(network, answer, network(*inputs))


@torch.inference_mode()
@pytest.mark.skipif(not packed.available(), reason="no packed products for this processor")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_packed_layers_answer_alike_for_every_family(
    precision, family_keeping_all, images, monkeypatch
):
    if precision == "bfloat16" and not NATIVE_BF16:
        pytest.skip("no bfloat16")
    network, inputs = family_keeping_all, images(family_keeping_all, 2, 1)
    usual = Engine(network, precision)
    monkeypatch.setattr(packed, "WORTHWHILE", 32)
    engine = Engine(network, precision)
    kinds = [sum(isinstance(module, packed.PackedLinear) for module in run.modules())
             for run in (usual, engine)]  # fmt: skip
    assert kinds[0] < kinds[1]
    joined = [getattr(module, "then", "none") for module in engine.modules()].count("gelu")
    assert joined == sum(isinstance(module, Mlp) for module in engine.modules())
    answer, expected = engine(*inputs), network(*inputs)
    if precision == "float32":
        assert difference(answer, expected) < 1e-5
    else:
        assert_near(network, answer, expected)


@torch.inference_mode()
@pytest.mark.parametrize(
    "precision",
    [
        "float32",
        pytest.param("bfloat16", marks=NEEDS_BF16),
        pytest.param("int8", marks=NEEDS_INT8),
    ],
)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))]
)
def test_copies_answer_alike_and_remember_apart(copied, precision, small, images, monkeypatch):
    monkeypatch.setattr(packed, "WORTHWHILE", 32)
    engine = Engine(small("sutrack_t224"), precision)
    inputs, others = images(engine, 1, 1), images(engine, 1, 2)
    expected = engine(*inputs)
    engine._graphed._recordings[()] = threading.Lock()  # as a recording, it cannot be copied
    twin = copied(engine)
    assert twin._graphed._recordings == {} and twin._graphed.function.__self__ is twin
    twin(*others)
    for own in (engine, twin):
        assert difference(own(*inputs), expected) < 1e-5
        assert difference(own(*others), expected) > 1e-4


def test_a_copy_of_a_compiled_engine_runs_its_own_network(small, images, monkeypatch):
    made = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **_: made.append(function.__self__) or function
    )
    engine = Engine(small("ostrack256"), compile=True)
    twins = [copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))]
    assert all(a is b for a, b in zip(made, [engine, *twins], strict=True))
    inputs = images(engine, 1, 1)
    for own in (engine, *twins):
        for _ in range(2):
            assert difference(own(*inputs), engine(*inputs)) < 1e-5


def test_streams_take_turns(monkeypatch):
    class Stream:
        def __init__(self):
            self.waited = []

        def wait_stream(self, other):
            self.waited.append(other)

    first, second = Stream(), Stream()
    turn = pickle.loads(pickle.dumps(Turn(torch.device("cuda"))))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: stream is None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    for stream in (first, first, None, second, None, second, first):  # noqa: B007
        with turn:
            pass
    assert second.waited == [first] and first.waited == [second]
    third = stream = Stream()
    with turn:
        stream = Stream()  # on which a recording is tried out
        with turn:
            pass
        stream = third
    stream = Stream()
    with turn:
        assert stream.waited == [third]


def test_what_depends_on_the_template_alone_is_computed_once(small, images):
    network = small("two_branch_ostrack256")
    engine = Engine(network)
    seen = []
    embed = engine.network.backbone.patch_embed_rgb
    embed.proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    template, search = images(network, 1, 1)
    engine(template, search)
    engine(template, search)
    assert seen == [32, 64, 64]
    engine(template.clone(), search)
    assert seen == [32, 64, 64, 32, 64]


def test_a_template_that_was_written_to_is_another(small, images):
    network = small("two_branch_ostrack256")
    engine = Engine(network)
    template, search = images(network, 1, 1)
    other, _ = images(network, 1, 2)
    engine(template, search)
    template.copy_(other)
    assert not engine.recalls(template)
    with torch.inference_mode():
        assert difference(engine(template, search), network(template, search)) < 1e-5


def test_the_network_itself_is_untouched(small, images):
    network = small("two_branch_ostrack256")
    before = copy.deepcopy(network.state_dict())
    names = [name for name, _ in network.named_modules()]
    Engine(network, "bfloat16")(*images(network, 1, 1))
    assert names == [name for name, _ in network.named_modules()]
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_in_another_number_format_is_taken(dtype, precision, small, images):
    network = small("two_branch_ostrack256").to(dtype)
    inputs = images(network, 2, 1)
    answer, reference = Engine(network, precision)(*inputs), network.float()(*inputs)
    bound = 1e-5 if precision == "float32" else 0.1
    assert difference(answer, reference) < bound
    assert {answer[name].dtype for name in MAPS} == {torch.float32}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_an_empty_batch_has_an_empty_answer(precision, small, images):
    network = small("two_branch_ostrack256")
    assert len(Engine(network, precision)(*images(network, 0, 1))["pred_boxes"]) == 0


@NEEDS_INT8
@pytest.mark.parametrize("name", ["box_head.conv1_ctr.0.weight", "backbone.blocks.0.mlp.fc1.bias"])
def test_weights_that_are_not_finite_have_no_int8_form(name, small):
    network = small("ostrack256")
    network.state_dict()[name].view(-1)[0] = float("nan")
    with pytest.raises(UserError, match=f"{name} is not finite.* diverged"):
        Engine(network, "int8")


def test_inputs_that_a_network_can_do_without_may_be_none(small, images):
    network = small("two_branch_sutrack_t224")
    engine = Engine(network)
    template, search, *_ = images(network, 1, 1)
    rest = [None] * (len(network.input_names) - 2)
    with torch.inference_mode():
        for _ in range(2):
            expected = network(template, search)
            assert difference(engine(template, search, *rest), expected) < 1e-5
    with pytest.raises(UserError, match=r"2 inputs \(None, a value\); expected template, search"):
        engine(None, search)


def test_threads_that_share_an_engine_get_their_own_answers(small, images, monkeypatch):
    network = small("two_branch_ostrack256")
    engine = Engine(network)
    run = engine.network.forward

    def slow(*inputs):
        time.sleep(0.002)
        return run(*inputs)

    monkeypatch.setattr(engine.network, "forward", slow)

    def follow(seed: int) -> float:
        inputs = images(network, 1, seed)
        with torch.inference_mode():
            expected = network(*inputs)
            return max(difference(engine(*inputs), expected) for _ in range(20))

    with ThreadPoolExecutor(3) as threads:
        assert max(threads.map(follow, (1, 2, 3))) < 1e-5


@torch.inference_mode()
def test_what_a_recording_answers_is_not_overwritten_by_the_next_call(small, images, monkeypatch):
    network = small("two_branch_ostrack256")
    engine = Engine(network)
    template, search = images(network, 1, 1)
    own = {name: value.clone() for name, value in engine(template, search).items()}

    def replay(*inputs):
        for name, value in engine._flat_run(*inputs).items():
            own[name].copy_(value)
        return own

    monkeypatch.setattr(engine, "_graphed", replay)
    first = engine(template, search)
    engine(template, images(network, 1, 2)[1])
    assert difference(first, network(template, search)) < 1e-5


@torch.inference_mode()
def test_both_templates_are_recalled(small, images):
    network = small("sutrack_t224")
    engine = Engine(network)
    first, search, box = images(network, 1, 1)
    second = images(network, 1, 2)[0]
    for templates in ((first, second), (first, first), (second, second)):
        values = (templates, search, (box, box))
        for _ in range(2):
            assert difference(engine(*values), network(*values)) < 1e-5
        others = engine((first, second), search, (box, box))
        assert (difference(others, engine(*values)) > 1e-4) == (templates[0] is templates[1])


@torch.inference_mode()
def test_frames_after_the_first_are_compiled_where_asked_for(small, images, monkeypatch):
    calls = []

    def compile(function, **options):
        assert options == {"dynamic": False}
        return lambda *inputs: calls.append(len(inputs)) or function(*inputs)

    monkeypatch.setattr(torch, "compile", compile)
    network = small("two_branch_ostrack256")
    engine = Engine(network, compile=True)
    inputs = images(network, 1, 1)
    for expected in ([], [2], [2, 2]):
        assert difference(engine(*inputs), network(*inputs)) < 1e-5
        assert calls == expected


# --- whole sequences -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """The bundled tracker, and the two-branch network that starts from it."""
    base = load_network(BUNDLED)
    return {"tiny": base, "two_branch": two_branch_from(base).eval()}


def boxes_of(parameters, sequence, length):
    tracker, boxes = SRFTTracker(parameters), []
    for index in range(length):
        image, info = sequence.frames.rgb(index), {"aux": sequence.frames.aux(index)}
        if index:
            boxes.append(tracker.track(image, info)["target_bbox"])
        else:
            tracker.initialize(image, info | {"init_bbox": tuple(sequence.boxes[0])})
    return np.array(boxes)


@pytest.mark.parametrize("name", ["tiny", "two_branch"])
def test_float32_boxes_over_a_sequence(name, trained, device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    sequence = Synthetic(1, seed=5, modality="depth")[0]
    network = copy.deepcopy(trained[name]).to(device)
    parameters = TrackerParameters(network, Path("weights"), device)
    expected = boxes_of(parameters, sequence, 20)
    found = boxes_of(in_engine(parameters, "float32"), sequence, 20)
    assert np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize("kind", ["generated", "real"])
def test_float32_boxes_of_every_family(family, kind, request):
    if kind == "generated":
        sequence = Synthetic(1, seed=5, modality="depth")[0]
    else:
        root = request.getfixturevalue("shared") / "data" / "RGBD"
        sequence = open_dataset("depthtrack", root, "test")[0]
    parameters = TrackerParameters(family, Path("weights"))
    expected = boxes_of(parameters, sequence, 6)
    found = boxes_of(in_engine(parameters, "float32"), sequence, 6)
    assert np.abs(found - expected).max() < 0.05


def test_an_engine_is_made_anew_when_the_weights_have_changed(small):
    parameters = TrackerParameters(small("ostrack256"), Path("weights"))
    first = in_engine(parameters, "float32").network
    assert in_engine(parameters, "float32").network is first
    parameters.network.load_state_dict(small("ostrack256").state_dict())
    assert in_engine(parameters, "float32").network is not first


def test_parameters_say_what_the_engine_runs_in_and_are_given_it_once(small):
    network = small("ostrack256")
    parameters = in_engine(TrackerParameters(network, Path("weights")), "float16")  # a GPU's
    assert parameters.settings["precision"] == "float32"
    with pytest.raises(UserError, match="weights runs in the engine already, in float32"):
        in_engine(parameters, "float32")


@torch.inference_mode()
def test_an_engine_is_made_anew_for_another_sentence(small, images):
    network = small("sutrack_t224")
    parameters, inputs = TrackerParameters(network, Path("weights")), images(network, 1, 1)
    for seed in (None, 1, 2, 3):
        if seed is not None:
            network.no_text = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(seed))
        engine = in_engine(parameters, "float32").network
        assert difference(engine(*inputs), network(*inputs)) < 1e-5


@pytest.mark.parametrize("layout, root", [("depthtrack", "RGBD"), ("otb", "RGB")])
def test_float32_boxes_on_real_frames(layout, root, shared, trained):
    try:
        sequence = open_dataset(layout, shared / "data" / root, "test")[0]
    except UserError as error:
        pytest.skip(f"no sequence of {layout} there: {error}")
    parameters = TrackerParameters(trained["tiny"], Path("weights"))
    length = min(len(sequence), 30)
    expected = boxes_of(parameters, sequence, length)
    found = boxes_of(in_engine(parameters, "float32"), sequence, length)
    assert np.abs(found - expected).max() < 0.05


@pytest.fixture(scope="module")
def searches(trained):
    """Templates, search regions around the truth, their boxes and scales, and the truth.

    A tracker left alone may lose its target: then chance decides, not precision.
    """
    made = []
    for sequence in Synthetic(8, seed=5, modality="depth"):
        tracker = SRFTTracker(TrackerParameters(trained["two_branch"], Path("weights")))
        for index in range(0, len(sequence), 5):
            box = sequence.boxes[index]
            if not (np.isfinite(box).all() and box[2] > 0 and box[3] > 0):
                continue
            image, info = sequence.frames.rgb(index), {"aux": sequence.frames.aux(index)}
            if not index:
                tracker.initialize(image, info | {"init_bbox": tuple(box)})
                continue
            tracker.box = tuple(box + (5, -4, 3, 2))  # the centre would be easy
            region = tracker._cut(image, info, 4.0, 128)
            search = normalise(torch.from_numpy(region.pixels)[None].permute(0, 3, 1, 2))
            template = tracker._templates[0].images
            made.append((template, search, tracker.box, region.resize_factor, box))
    assert len(made) > 30
    return made


@torch.inference_mode()
@NEEDS_BF16
def test_of_the_head_the_first_layers_are_low_which_costs_little(trained, searches, monkeypatch):
    network = trained["two_branch"]

    def displaced() -> float:
        engine = Engine(network, "bfloat16")
        boxes = [
            torch.cat([run(template, search)["pred_boxes"] for template, search, *_ in searches])
            for run in (network, engine)
        ]
        return float((boxes[0] - boxes[1]).abs().median())

    head = Engine(network, "bfloat16").network.box_head.module
    dtypes = [layer.weight.dtype for layer in head.layers if isinstance(layer, torch.nn.Conv2d)]
    assert dtypes == [torch.bfloat16] * 2 + [torch.float32] * 2
    usual = displaced()
    monkeypatch.setattr(heads, "LOW_LAYERS", 0)
    assert usual < 2 * displaced()


@NEEDS_INT8
def test_the_library_of_int8_products_is_chosen_for_the_engine_alone(monkeypatch):
    usual, packs = torch.backends.quantized.engine, []
    pack = torch.ops.quantized.linear_prepack
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)

    def note(*arguments):
        packs.append(torch.backends.quantized.engine)
        return pack(*arguments)

    monkeypatch.setattr(torch.ops.quantized, "linear_prepack", note)
    layer = torch.nn.Linear(64, 64).requires_grad_(False)
    tokens = torch.randn(5, 64)
    found = quantised.Int8Linear(layer)(tokens)
    assert (found - layer(tokens)).abs().max() < 0.05
    onednn = "onednn" in torch.backends.quantized.supported_engines
    assert packs == ["onednn" if onednn else usual]
    assert torch.backends.quantized.engine == usual


@torch.inference_mode()
@LOW
def test_low_precision_overlaps_as_much(precision, device, trained, searches):
    """Where the float32 network decides: between cells within 2 % chance does, not precision."""
    network = copy.deepcopy(trained["two_branch"]).to(device)
    engine = Engine(network, precision)
    overlaps = []
    for template, search, around, resize_factor, truth in searches:
        answers = [run(template.to(device), search.to(device)) for run in (network, engine)]
        best, second = answers[0]["score_map"].flatten().topk(2).values.tolist()
        if second > 0.98 * best:
            continue
        found = [answer["pred_boxes"][0].double().cpu().numpy() * 128 for answer in answers]
        boxes = np.stack([box_to_frame(box, around, resize_factor, 128) for box in found])
        overlaps.append(overlap(boxes, np.stack([truth, truth])))
    assert len(overlaps) > 0.9 * len(searches)
    exact, low = np.mean(overlaps, 0)
    assert 0 < abs(low - exact) < 1e-3


# --- what can go wrong ---------------------------------------------------------------------------


def test_unknown_precision_suggests_the_nearest(small):
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        Engine(small("ostrack256"), "bfloat61")
    with pytest.raises(UserError, match="unknown precision 'fp8'"):
        load("default_rgb", precision="fp8")


@torch.inference_mode()
def test_images_of_another_type_leave_the_engine_usable(family, images):
    network, engine = family, Engine(family)
    template, search, *others = images(network, 1, 1)
    with pytest.raises(RuntimeError, match="double"):
        engine(template.double(), search.double(), *others)
    assert difference(engine(template, search, *others), network(template, search, *others)) < 1e-5


def test_a_precision_that_the_device_lacks_falls_back_with_one_warning(
    small, images, caplog, monkeypatch
):
    network = small("ostrack256")
    with caplog.at_level(logging.WARNING):
        assert Engine(network, "float16").dtype == torch.float32
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        Engine(network, "bfloat16")
        monkeypatch.setattr(quantised, "available", lambda: False)
        engine = Engine(network, "int8")
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "float16 is slow or absent here",
        "bfloat16 is slow or absent here",
        "int8 is slow or absent here",
    ]
    inputs = images(network, 1, 1)
    assert difference(engine(*inputs), network(*inputs)) < 1e-5


def test_images_of_another_shape_are_errors_and_leave_the_engine_usable(small, images):
    network = small("two_branch_ostrack256")
    engine = Engine(network)
    template, search = images(network, 1, 1)
    for wrong in ((template, template), (search, search), (template[:, :3], search)):
        with pytest.raises(UserError, match="has shape"):
            engine(*wrong)
    with pytest.raises(UserError, match="3 inputs .*; expected template, search"):
        engine(template, search, search)
    with pytest.raises(UserError, match="0 inputs .*; expected template, search"):
        engine()
    assert difference(engine(template, search), network(template, search)) < 1e-5


@pytest.mark.parametrize(
    "shortage",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_a_batch_that_exceeds_the_memory_runs_in_halves(
    shortage, small, images, monkeypatch, caplog
):
    network = small("two_branch_ostrack256")
    engine = Engine(network)
    inputs = images(network, 5, 1)
    run, limit = engine.network.forward, 2

    def short_of_memory(*values):
        if len(values[0]) > limit:
            raise shortage
        return run(*values)

    monkeypatch.setattr(engine.network, "forward", short_of_memory)
    assert difference(engine(*inputs), network(*inputs)) < 1e-5
    assert difference(engine(*inputs), network(*inputs)) < 1e-5
    assert [record.message for record in caplog.records] == [
        "a batch of 5 exceeds the memory of cpu; running at most 2 at once"
    ]
    limit = 0
    with pytest.raises(UserError, match="one sample alone exceeds the memory of cpu"):
        engine(*inputs)


def test_other_failures_of_the_network_are_not_taken_for_a_shortage(small, images, monkeypatch):
    engine = Engine(small("two_branch_ostrack256"))

    def fail(*values):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(engine.network, "forward", fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        engine(*images(engine, 2, 1))


@torch.inference_mode()
@NEEDS_GPU
def test_a_recording_on_a_gpu_answers_what_the_network_answers(
    family_keeping_all, images, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network = family_keeping_all.cuda()
    engine = Engine(network)
    for seed in (1, 2):  # a recording goes on with another template
        inputs = [values.cuda() for values in images(network, 1, seed)]
        for turn in range(3):
            inputs[1] = images(network, 1, 10 + turn)[1].cuda()
            assert difference(engine(*inputs), network(*inputs)) < 1e-3
    assert len(engine._graphed._recordings) == 1
