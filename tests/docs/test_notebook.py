"""Every notebook of the documentation runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted({DOCS / "quickstart.ipynb", *DOCS.rglob("*.ipynb")})
LESS = {"steps_per_epoch=20": "steps_per_epoch=2", "num_prompts=120": "num_prompts=12"}
"""Sizes of training and evaluation, which take most of a notebook's time, and those of the test."""


def execute(path: Path, folder: Path) -> None:
    """Run a notebook in a folder, by the interpreter that runs this.

    With no folders to find kernels in, `python3` is this interpreter, whatever is installed for the user.
    """
    notebook = nbformat.read(path, as_version=4)
    for size, less in LESS.items():
        assert any(size in cell.source for cell in notebook.cells), size
        for cell in notebook.cells:
            cell.source = cell.source.replace(size, less)
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, km=kernel, timeout=900, resources=where).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(DOCS)))
def test_it_runs(path: Path, tmp_path: Path) -> None:
    execute(path, tmp_path)
