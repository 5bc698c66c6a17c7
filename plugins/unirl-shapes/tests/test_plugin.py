from importlib import import_module

import pluggy

from unirl.hooks import PROJECT, specs
from unirl.judges import Judge
from unirl.prompts import Prompts
from unirl_shapes import plugin


def test_registered_classes_can_be_imported():
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(specs)
    manager.register(plugin)
    registered = {}
    manager.hook.unirl_register_prompts(register=lambda name, path: registered.update(prompts=(name, path)))
    manager.hook.unirl_register_judges(register=lambda name, path: registered.update(judge=(name, path)))
    for kind, base in (("prompts", Prompts), ("judge", Judge)):
        name, path = registered[kind]
        module, attribute = path.split(":")
        assert name == "shapes"
        assert isinstance(getattr(import_module(module), attribute)(), base)
