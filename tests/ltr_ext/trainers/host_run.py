"""Trains in a trainer of pytracking's making: `python host_run.py FOLDER EPOCHS CHECKOUT`.

With an empty CHECKOUT it is the stand-in below. Two epochs, then as many more as are asked for, in
a new trainer that goes on from the checkpoint. Prints the final loss and the SRFT steps as JSON.
"""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from mini import mini_network

from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.training_sets import open_training_sets
from ltr_ext.trainers.host import HostActor, HostLoader
from srft_plugin import SRFT, bind_operations

FUSION = "backbone.fusion.0.attn.qkv.weight"


class StandIn:
    """Asks of actor, loaders, optimizer and settings what pytracking's LTRTrainer asks."""

    def __init__(self, actor, loaders, optimizer, settings, lr_scheduler):
        self.actor, self.loaders, self.optimizer = actor, loaders, optimizer
        self.settings, self.lr_scheduler = settings, lr_scheduler
        self.epoch, self.stats = 0, {}
        self.folder = Path(settings.env.workspace_dir, "checkpoints", settings.project_path)
        actor.to(torch.device("cpu"))

    def train(self, max_epochs, load_latest=False, fail_safe=True):
        assert not fail_safe
        if load_latest:
            self._load()
        while self.epoch < max_epochs:
            self.epoch += 1
            for loader in self.loaders:
                if self.epoch % loader.epoch_interval == 0:
                    self._cycle(loader)
            self.lr_scheduler.step()
            self._save()

    def _cycle(self, loader):
        self.actor.train(loader.training)
        values = []
        with torch.set_grad_enabled(loader.training):
            for data in loader:
                data = data.to(torch.device("cpu"))
                data["epoch"], data["settings"] = self.epoch, self.settings
                loss, stats = self.actor(data)
                assert all(type(value) is float for value in stats.values())
                values.append(stats)
                if loader.training:
                    self.optimizer.zero_grad()
                    loss.backward()
                    limit = self.settings.grad_clip_max_norm
                    torch.nn.utils.clip_grad_norm_(self.actor.net.parameters(), limit)
                    self.optimizer.step()
        assert len(values) == len(loader)
        means = {n: sum(v[n] for v in values) / len(values) for n in values[0]}
        self.stats[loader.name] = means

    def _save(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "epoch": self.epoch,
            "net": self.actor.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stats": self.stats,
        }
        name = f"{type(self.actor.net).__name__}_ep{self.epoch:04d}.pth.tar"
        torch.save(state, self.folder / name)

    def _load(self):
        files = sorted(self.folder.glob("*.pth.tar"))
        if files:
            state = torch.load(files[-1])
            self.actor.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.stats = state["epoch"], state["stats"]
            self.lr_scheduler.last_epoch = self.epoch


def host(checkout, folder):
    """Trainer class and settings of the checkout, or the stand-in's."""
    if not checkout:
        env = SimpleNamespace(workspace_dir=str(folder), tensorboard_dir=str(folder / "tb"))
        return StandIn, SimpleNamespace(env=env)
    sys.path.insert(0, checkout)
    local = ModuleType("ltr.admin.local")  # in place of the user's file of paths

    class EnvironmentSettings:
        def __init__(self):
            self.workspace_dir, self.tensorboard_dir = str(folder), str(folder / "tb")

    EnvironmentSettings.__module__, EnvironmentSettings.__qualname__ = local.__name__, "E"
    EnvironmentSettings.__name__ = "E"
    local.EnvironmentSettings = local.E = EnvironmentSettings
    sys.modules[local.__name__] = local
    from ltr.admin.settings import Settings
    from ltr.admin.stats import AverageMeter, StatValue
    from ltr.trainers import LTRTrainer

    safe = [Settings, EnvironmentSettings, AverageMeter, StatValue]
    torch.serialization.add_safe_globals(safe)
    return LTRTrainer, Settings()


def make(checkout, folder, steps):
    kind, settings = host(checkout, folder)
    settings.module_name, settings.script_name = "srft", "test"
    settings.project_path = "ltr/srft/test"
    settings.grad_clip_max_norm, settings.use_gpu = 0.1, False
    network = mini_network(drop_path=0.0)
    sets = open_training_sets(("synthetic_rgbd",))
    loaders = [
        HostLoader("train", PairDataset(sets, None, network.spec, 8, seed=0), 4),
        HostLoader("val", PairDataset(sets, None, network.spec, 4, seed=1), 4, training=False),
    ]
    adamw = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    optimizer = SRFT(adamw, bind_operations(network), steps, mode="transfer")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    trainer = kind(HostActor(network), loaders, optimizer, settings, scheduler)
    for loader in loaders:
        loader.trainer = trainer
    return trainer


def main(folder, epochs, checkout):
    torch.set_num_threads(1)
    whole = make(checkout, folder / "whole", 2 * epochs)
    whole.train(epochs, fail_safe=False)
    make(checkout, folder / "parts", 2 * epochs).train(2, fail_safe=False)
    resumed = make(checkout, folder / "parts", 2 * epochs)
    resumed.train(epochs, load_latest=True, fail_safe=False)
    first, second = (dict(t.actor.net.named_parameters()) for t in (whole, resumed))
    result = {
        "trainer": type(whole).__name__,
        "equal": all(torch.equal(first[name], second[name]) for name in first),
        "moved": not torch.equal(first[FUSION], mini_network(0.0).get_parameter(FUSION)),
        "steps": [t.optimizer.steps for t in (whole, resumed)],
        "rates": [t.optimizer.param_groups[0]["lr"] for t in (whole, resumed)],
        "checkpoints": sorted(p.name for p in folder.glob("parts/**/*.pth.tar")),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
