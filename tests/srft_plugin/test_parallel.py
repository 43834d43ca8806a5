"""Two processes give the weights and the prior of one: data parallel, and sharded parameters."""

from pathlib import Path

import pytest
import torch

from srft_plugin import estimate_prior
from srft_plugin.transfer import histogram

WORKER = Path(__file__).with_name("parallel_worker.py")


@pytest.fixture(scope="module")
def worker(load_script):
    return load_script(WORKER)


@pytest.fixture(scope="module")
def results(two_processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    with two_processes(WORKER, folder):
        pass
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("kind", ["ddp", "sharded", "sharded, fused"])
def test_two_processes_train_like_one(worker, results, kind, monkeypatch):
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 0)
    expected = worker.train(worker.make_network())
    for result in results:
        found = {name.removeprefix("module."): value for name, value in result[kind].items()}
        assert list(found) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_two_processes_estimate_the_prior_of_all_samples(worker, results):
    batches = [worker.make_batch(seed) for seed in range(2)]
    expected = estimate_prior(worker.make_network(), worker.losses, batches, top_k=6)
    for result in results:
        for name, spectrum in expected.spectra.items():
            torch.testing.assert_close(result["prior"][name], spectrum, rtol=1e-9, atol=1e-12)


def test_shards_of_every_kind_are_counted_together_and_unreduced_gradients_refused(results):
    for result in results:
        assert torch.equal(result["counts"]["strided"], histogram(torch.arange(1.0, 9.0)))
        assert "still to be summed over processes" in result["counts"]["partial"]


@pytest.mark.parametrize("batches", [1, 2])
def test_samples_that_take_other_paths_in_each_process_are_gathered_all_the_same(
    worker, results, batches
):
    halves = [half for seed in range(batches) for half in worker.make_signed_batch(seed).chunk(2)]
    expected = estimate_prior(worker.Branching(), worker.losses, halves, top_k=6).spectra
    for result in results:
        found = result["prior of branches"][batches - 1]
        assert found.keys() == expected.keys()
        for name, spectrum in expected.items():
            torch.testing.assert_close(found[name], spectrum, rtol=1e-9, atol=1e-12)
