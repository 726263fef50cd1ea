"""LoRA and other adapters of peft: put on their base with every tensor accounted for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixlens.errors import CheckpointError, explain, first_line
from mixlens.models.accounting import differences
from mixlens.models.folder import ADAPTER_CONFIG, tensor_shapes, weight_files

NAME = "default"  # by which peft knows the adapters of a model that has only these
PREFIX = "base_model.model."  # before the names of the base's modules in a file of adapters


def put_adapters(model: Any, source: str) -> Any:
    """`model` with the adapters in the folder `source` on it, for inference.

    Raises:
        CheckpointError: they are not complete, or not made for this model.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    adapted, names = _fitted(model, source, without_weights=False)
    (file,) = weight_files(Path(source))
    stored = load_file(file)
    set_peft_model_state_dict(adapted, {names[name]: stored[name] for name in stored}, NAME)
    return adapted.eval()


def check_adapters(model: Any, source: str) -> None:
    """Refuse adapters that `put_adapters` would refuse, on a `model` without weights.

    Raises:
        CheckpointError: they are not complete, or not made for this model.
    """
    _fitted(model, source, without_weights=True)


def names_now(model: Any, folder: Path) -> dict[str, str]:
    """The name in today's transformers of each tensor in the file of adapters in `folder`.

    Modules of some families have moved within the model from version to version. transformers
    knows this for the weights of whole models, whose names are those of modules, and so for the
    modules that adapters are on. A name that nothing is known of stays.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    renamed = _Renamed(model)
    return {name: renamed.tensor(name) for name in tensor_shapes(weight_files(folder))}


def _fitted(model: Any, source: str, without_weights: bool) -> tuple[Any, dict[str, str]]:
    """The model with adapters as their configuration says, and `names_now`, if all of that fits."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    folder = Path(source)
    shapes = tensor_shapes(weight_files(folder))
    names = names_now(model, folder)
    base = {name: tensor.shape for name, tensor in model.state_dict().items()}
    base_path = model.name_or_path
    try:
        config = PeftConfig.from_pretrained(source)
        config.inference_mode = True
        if any(now != then for then, now in names.items()):
            _Renamed(model).targets(config, names)
        adapted = get_peft_model(
            model, config, NAME, autocast_adapter_dtype=False, low_cpu_mem_usage=without_weights
        )
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            explain(f"model {folder / ADAPTER_CONFIG}", base_path, "its adapters cannot be put on "
                    f"this base: {first_line(error).rstrip('.')}",
                    "Name in base_model_name_or_path the model that they were trained on.")
        ) from error  # fmt: skip
    needed = get_peft_model_state_dict(adapted, adapter_name=NAME, save_embedding_layers=False)
    refuse_unfit(source, needed, {names[name]: shape for name, shape in shapes.items()}, base)
    return adapted, names


def refuse_unfit(
    source: str,
    needed: Mapping[str, Tensor],
    there: Mapping[str, tuple[int, ...]],
    base: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise unless the file of adapters has all tensors that they need, and no others.

    Besides, it may have weights of the base, such as embeddings that were trained too.
    """
    missing = needed.keys() - there.keys()
    homeless = {
        name for name in there.keys() - needed.keys() if name.removeprefix(PREFIX) not in base
    }
    shapes = {f"{PREFIX}{name}": tuple(shape) for name, shape in base.items()}
    shapes |= {name: tuple(tensor.shape) for name, tensor in needed.items()}
    misshapen = [
        (name, tuple(shape), shapes[name])
        for name, shape in there.items()
        if name in shapes and tuple(shape) != shapes[name]
    ]
    if odd := differences(missing, homeless, misshapen, "the adapted model"):
        raise CheckpointError(
            explain("model", source, f"its {ADAPTER_CONFIG} and its base call for other adapters "
                    f"than the file holds: {odd}",
                    "Put them on the model that they were trained on, and keep adapter_config.json "
                    "and the weights of one run together.")
        )  # fmt: skip


class _Renamed:
    """What modules of a base are called now, and were called in older transformers."""

    def __init__(self, model: Any) -> None:
        # These two are what peft itself uses, but not for all families.
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming

        conversions = get_model_conversion_mapping(model, add_legacy=False)
        self._renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
        self._weights = model.state_dict()
        self._prefix = model.base_model_prefix
        self._modules = dict(model.named_modules())

    def tensor(self, name: str) -> str:
        """Today's name of a tensor of adapters: that of its module may have changed."""
        if not name.startswith(PREFIX):
            return name
        parts = name.removeprefix(PREFIX).split(".")
        for end in range(len(parts) - 1, 0, -1):
            then = ".".join(parts[:end])
            if (now := self.module(then)) is not None:
                return ".".join([f"{PREFIX}{now}", *parts[end:]])
        return name

    def module(self, then: str) -> str | None:
        """Today's name of a module."""
        from transformers.core_model_loading import rename_source_key

        if then in self._modules:
            return then
        weight, _ = rename_source_key(
            f"{then}.weight", self._renamings, [], self._prefix, self._weights
        )
        return weight.removesuffix(".weight") if weight in self._weights else None

    def targets(self, config: Any, names: Mapping[str, str]) -> None:
        """Have a configuration that speaks of modules by older names mean those of today."""
        from peft.tuners.tuners_utils import check_target_module_exists
        from peft.utils.other import get_pattern_key

        then = self._names_then(names)
        wanted = [
            now
            for now, module in self._modules.items()
            if isinstance(module, nn.Linear | nn.Embedding | nn.modules.conv._ConvNd)
            and check_target_module_exists(config, then[now])
        ]
        if not wanted:
            return
        for field in ("rank_pattern", "alpha_pattern"):
            if pattern := getattr(config, field, None):
                keys = {now: get_pattern_key(pattern.keys(), then[now]) for now in wanted}
                named = {now: pattern[key] for now, key in keys.items() if key in pattern}
                setattr(config, field, named)
        config.target_modules = set(wanted)
        for field in ("exclude_modules", "layers_to_transform", "layers_pattern"):
            if hasattr(config, field):
                setattr(config, field, None)

    def _names_then(self, names: Mapping[str, str]) -> dict[str, str]:
        """Of every module the name in the file of adapters, or the oldest that is known."""
        from transformers.core_model_loading import apply_renamings

        back = [renaming.reverse_transform() for renaming in self._renamings[::-1]]
        then = {
            now: apply_renamings(f"{now}.weight", back).removesuffix(".weight")
            for now in self._modules
        }
        for old, new in names.items():
            module = new.removeprefix(PREFIX)
            while module and module not in self._modules:
                module = module.rpartition(".")[0]
            rest = new.removeprefix(f"{PREFIX}{module}")
            then[module] = old.removeprefix(PREFIX).removesuffix(rest)
        return then
