"""What GenEval's judge costs: seconds an image at the real size, with random weights.

    python benchmarks/geneval_judge.py --threads 1 --size 512

Nothing is downloaded. The time depends on the values of the weights only by what is detected: 5 objects, or 100.
"""

import argparse
import time
from collections.abc import Callable

import torch
from transformers import CLIPConfig, CLIPModel, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from unirl_geneval.colors import ColorClassifier
from unirl_geneval.detections import instances
from unirl_geneval.detector import Detector
from unirl_geneval.resize import LONG_SIDE, SHORT_SIDE, input_size

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SWIN_S = {
    "embed_dim": 96,
    "depths": [2, 2, 18, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "out_features": STAGES,
}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
VISION_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}


def detector() -> Detector:
    """The architecture of mask2former-swin-small-coco-instance."""
    made = Detector.__new__(Detector)
    made.scale = (LONG_SIDE, SHORT_SIDE)
    config = Mask2FormerConfig(num_labels=80, backbone_config=SwinConfig(**SWIN_S))
    made.model = Mask2FormerForUniversalSegmentation(config).eval()
    return made


def clip() -> CLIPModel:
    """The architecture of clip-vit-large-patch14."""
    vision = VISION_L | {"patch_size": 14, "image_size": 224}
    return CLIPModel(CLIPConfig(text_config=TEXT_L, vision_config=vision, projection_dim=768)).eval()


def report(name: str, call: Callable[[], object], repeats: int) -> None:
    """Print the least time of some calls, after one that is not measured."""
    call()
    seconds, processor = [], []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    print(f"{name:45} {min(seconds):7.2f} s   {min(processor):7.2f} s of processor", flush=True)


@torch.no_grad()
def main() -> None:
    """Measure the parts of the judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=512, help="side of the images")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    side, repeats = options.size, options.repeats
    found, images = detector(), torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    report("detector: input and network", lambda: found.outputs(images), repeats)
    (classes,), (masks,) = found.outputs(images)
    size = input_size(side, side)
    for count in (5, len(classes)):
        logits = torch.zeros_like(classes)
        logits[:, -1] = 12.0
        logits[range(count), [i % 80 for i in range(count)]] = 30.0
        report(
            f"detections of {count} objects",
            lambda logits=logits: instances(logits, masks, size, side, side, min_class_probability=0.3),
            repeats,
        )
    colors = ColorClassifier.__new__(ColorClassifier)
    colors.model, colors._classifiers = clip(), {"cup": torch.zeros(768, 10)}
    crops = torch.randn(1, 3, 224, 224)
    report("color of an object", lambda: colors.logits("cup", crops), repeats)
    ids = torch.randint(5, 400, (30, 12))
    report("texts of a class, once", lambda: colors.model.text_model(input_ids=ids), repeats)


if __name__ == "__main__":
    main()
