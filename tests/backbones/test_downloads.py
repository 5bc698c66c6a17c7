"""What is downloaded from the hub: only files that are read, and weights in one format."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from tests.backbones.janus.authors import save as save_janus

from unirl.backbones.checkpoints import locate, read_json
from unirl.backbones.hub import cached_folder
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo, checkpoint
from unirl.errors import UserError

OTHER = (
    *("flax_model.msgpack", "tf_model.h5", "README.md", "teaser.png", "handler.py"),
    *("model.fp16.safetensors", "consolidated.safetensors", "onnx/model.safetensors", "onnx/config.json"),
)
"""Files of other frameworks, formats and precisions, and for people, which many repositories have."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, set[str]]]:
    """A hub of the repositories `tmp_path/hub/OWNER/NAME`. Returns what was downloaded of each."""

    def list_repo_files(repo_id: str, revision: str | None = None) -> list[str]:
        repository = tmp_path / "hub" / (f"{repo_id}@{revision}" if revision else repo_id)
        if not repository.is_dir():
            raise ConnectionError(f"no repository {repo_id}")
        return [str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()]

    def snapshot_download(
        repo_id: str,
        revision: str | None = None,
        allow_patterns: Sequence[str] | None = None,
        local_files_only: bool = False,
    ) -> str:
        name = f"{repo_id}@{revision}" if revision else repo_id
        repository, cache = tmp_path / "hub" / name, tmp_path / "cache" / name
        if local_files_only and not cache.is_dir():
            raise FileNotFoundError(repo_id)
        files = [] if local_files_only else list_repo_files(repo_id, revision)
        for name in filter_repo_objects(files, allow_patterns=None if allow_patterns is None else list(allow_patterns)):
            (cache / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, cache / name)
        return str(cache)

    def downloaded() -> dict[str, set[str]]:
        cache = tmp_path / "cache"
        found: dict[str, set[str]] = {}
        for path in cache.glob("*/*/**/*"):
            owner, name, *rest = path.relative_to(cache).parts
            if path.is_file():
                found.setdefault(f"{owner}/{name}", set()).add("/".join(rest))
        return found

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.list_repo_files", list_repo_files)
    return downloaded


def add(tmp_path: Path, repository: str, source: Path, *pickles: str) -> Path:
    """Copy a checkpoint to the hub, with the same weights as pickles, and with files that nobody reads."""
    folder = tmp_path / "hub" / repository
    shutil.copytree(source, folder)
    for name in pickles:
        torch.save(load_file(folder / "model.safetensors"), folder / name)
    for name in OTHER:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"unread")
    return folder


def test_show_o_downloads_neither_the_weights_of_its_text_model_nor_pickles(
    hub: Callable[[], dict[str, set[str]]], shapes_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of phi-1_5, which is 2.8 GB, config and tokenizer. MAGVIT-v2 is here as pickles alone."""
    main = add(tmp_path, "showlab/show-o", shapes_checkpoint, "pytorch_model.bin")
    phi = add(tmp_path, "microsoft/phi-1_5", main / "llm")
    shutil.copytree(main / "tokenizer", phi, dirs_exist_ok=True)
    shutil.copy(main / "model.safetensors", phi)
    magvit = add(tmp_path, "showlab/magvitv2", main / "image_tokenizer", "pytorch_model.bin")
    (magvit / "model.safetensors").unlink()
    for part in ("llm", "tokenizer", "image_tokenizer"):
        shutil.rmtree(main / part)
    overrides: dict[str, Any] = {"llm_model_path": "microsoft/phi-1_5", "image_tokenizer": "showlab/magvitv2"}
    checkpoint._write_json(main / "config.json", read_json(main / "config.json") | overrides)

    public, local = Showo.from_pretrained("showlab/show-o"), Showo.from_pretrained(str(shapes_checkpoint))
    assert all(torch.equal(value, public.state_dict()[name]) for name, value in local.state_dict().items())
    found = hub()
    assert found["showlab/show-o"] == {"config.json", "model.safetensors"}
    assert found["showlab/magvitv2"] == {"config.json", "pytorch_model.bin"}
    assert {"config.json", "tokenizer.json"} <= found["microsoft/phi-1_5"]
    assert all(name.endswith((".json", ".txt", ".jinja")) for name in found["microsoft/phi-1_5"])


def test_janus_downloads_safetensors_only(
    hub: Callable[[], dict[str, set[str]]], janus_checkpoint: Path, tmp_path: Path
) -> None:
    add(tmp_path, "deepseek-community/janus", janus_checkpoint, "pytorch_model.bin")
    Janus.from_pretrained("deepseek-community/janus")
    expected = {path.name for path in janus_checkpoint.iterdir()}
    assert hub()["deepseek-community/janus"] == expected
    assert "model.safetensors" in expected


def test_janus_in_its_authors_format_downloads_pickles_where_there_is_nothing_else(
    hub: Callable[[], dict[str, set[str]]], tmp_path: Path
) -> None:
    folder = tmp_path / "hub" / "deepseek-ai" / "janus"
    save_janus(folder, pro=True, layout="bin")
    names = {path.name for path in folder.iterdir()}
    for name in OTHER:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"unread")
    Janus.from_pretrained("deepseek-ai/janus")
    assert hub()["deepseek-ai/janus"] == names
    assert "pytorch_model.bin" in names


def test_a_saved_show_o_is_downloaded_with_its_own_parts_and_no_others(
    hub: Callable[[], dict[str, set[str]]], shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """The image tokenizer lies inside of it, in a folder that its config names."""
    folder = add(tmp_path, "me/mine", shapes_checkpoint)
    (folder / "image_tokenizer").rename(folder / "vq")
    shutil.copytree(folder / "vq", folder / "old_tokenizer")
    checkpoint._write_json(folder / "config.json", read_json(folder / "config.json") | {"image_tokenizer": "vq"})
    public = Showo.from_pretrained("me/mine")
    assert public.sampling_config.image_sampling.steps
    expected = {str(path.relative_to(shapes_checkpoint)) for path in shapes_checkpoint.rglob("*") if path.is_file()}
    assert hub()["me/mine"] == {name.replace("image_tokenizer/", "vq/") for name in expected}


def test_what_is_in_the_cache_is_read_without_the_hub(
    hub: Callable[[], dict[str, set[str]]], janus_checkpoint: Path, tmp_path: Path
) -> None:
    add(tmp_path, "deepseek-community/janus", janus_checkpoint)
    first = locate("deepseek-community/janus")
    shutil.rmtree(tmp_path / "hub")
    assert locate("deepseek-community/janus") == first
    with pytest.raises(UserError, match="no local folder 'deepseek-community/other', and the hub did not give it"):
        locate("deepseek-community/other")


def test_shards_of_pickles_are_downloaded_where_there_are_no_safetensors(
    hub: Callable[[], dict[str, set[str]]], tmp_path: Path
) -> None:
    folder = tmp_path / "hub" / "some" / "model"
    folder.mkdir(parents=True)
    names = ("pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "config.json")
    others = ("README.md", "model.fp16.safetensors", "training_args.bin", "pytorch_model.pt")
    for name in (*names, *others):
        (folder / name).write_text('{"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}')
    locate("some/model")
    assert hub()["some/model"] == {*names}


def test_a_revision_is_downloaded_and_found_in_the_cache(
    hub: Callable[[], dict[str, set[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("some/model", "some/model@v2"):
        (tmp_path / "hub" / name).mkdir(parents=True)
        (tmp_path / "hub" / name / "config.json").write_text("{}")
    assert locate("some/model").name == "model"
    assert locate("some/model", revision="v2").name == "model@v2"
    with pytest.raises(UserError, match="did not give it at revision 'v3'"):
        locate("some/model", revision="v3")
    shutil.rmtree(tmp_path / "hub")
    assert locate("some/model", revision="v2").name == "model@v2"
    assert cached_folder("some/model", "v3") is None
