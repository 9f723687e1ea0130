"""Strict models, YAML files and `--set a.b=c` overrides. Precedence: defaults < YAML < overrides."""

from __future__ import annotations

import difflib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PACKAGE_DIR = Path(__file__).resolve().parent


class UserError(Exception):
    """Base of every error that a user can mend: its message says what was wrong, what was expected and what to do.

    Commands print the message alone; `--debug` shows the traceback too. Any other exception is a defect of rayward and
    always shows its traceback.
    """


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used; the message says which key, what was wrong and what to do."""


class Strict(BaseModel):
    """Base of every configuration model: frozen, and an unknown key is an error that names the nearest known key."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


ConfigT = TypeVar("ConfigT", bound=Strict)


class YamlConfig(Strict):
    """A model that is the root of a YAML document."""

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Reads a YAML file (or the name of one that ships in `configs/`) and applies `a.b=c` overrides. A file that
        says `extends: other.yaml` is laid over that one, key by key.

        Raises ConfigError when a file is missing, is not a mapping, or does not fit the schema.
        """
        file = find_yaml(path)
        return cls.parse(read_yaml(file), overrides, source=str(file))

    @classmethod
    def parse(cls, data: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "config") -> Self:
        """Validates plain data after applying overrides. Raises ConfigError."""
        try:
            try:
                return cls.model_validate(apply_overrides(data, overrides))
            except ValidationError as error:
                texts = {_place(problem) for problem in error.errors() if problem["type"] == "string_type"}
                return cls.model_validate(apply_overrides(data, overrides, texts))
        except ValidationError as error:
            raise ConfigError(explain(error, cls, source)) from error

    def dump(self) -> dict[str, Any]:
        """The resolved configuration as plain JSON-able data; `parse(dump())` gives an equal object."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.dump(), sort_keys=False)


def read_yaml(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in `file`, laid over the file that it `extends` (a path beside it). Raises ConfigError."""
    if file in above:
        raise ConfigError(f"{file} extends itself: {' -> '.join(map(str, (*above, file)))}")
    try:
        data = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} must hold a mapping of settings, but holds {type(data).__name__}")
    base = data.pop("extends", None)
    if base is None:
        return data
    parent = file.parent / str(base)
    if not parent.is_file():
        raise ConfigError(f"{file} extends {base!r}, but there is no file {parent}")
    return _laid_over(read_yaml(parent, (*above, file)), data)


def _laid_over(base: dict[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in data.items():
        old = merged.get(key)
        merged[key] = _laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def find_yaml(path: str | Path) -> Path:
    """The file itself, or `configs/...` as shipped with the package (so that a wheel finds its own configs)."""
    given = Path(path)
    candidates = [given, PACKAGE_DIR.parent / given, PACKAGE_DIR / given]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shipped = sorted(str(p.relative_to(PACKAGE_DIR.parent)) for p in PACKAGE_DIR.rglob("*.yaml"))
    near = difflib.get_close_matches(str(given), shipped, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no such config file: {given}.{hint} Shipped configs: {', '.join(shipped)}")


def _place(problem: ErrorDetails) -> str:
    """As a key on the command line."""
    return ".".join(map(str, problem["loc"]))


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str], texts: Container[str] = ()) -> dict[str, Any]:
    """A copy of `data` with each `a.b=c` set; the value is parsed as YAML (so `1e-4`, `true`, `[1, 2]` work), but for
    keys in `texts`, whose value is text however it looks.

    >>> apply_overrides({"a": {"b": 1}}, ["a.b=2", "c=x"])
    {'a': {'b': 2}, 'c': 'x'}
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(data)))
    for override in overrides:
        key, separator, text = override.partition("=")
        value = text if key.strip() in texts else _scalar(text)
        if not separator or not key.strip():
            raise ConfigError(f"--set {override!r} must look like section.key=value")
        node: Any = result
        *parents, last = key.strip().split(".")
        for name in parents:
            child = _member(node, name, override)
            if child is None:
                child = node[name] = {}
            node = child
        if isinstance(node, list):
            node[_index(node, last, override)] = value
        elif isinstance(node, dict):
            node[last] = value
        else:
            raise ConfigError(f"--set {override!r}: {'.'.join(parents)} is a value, not a section")
    return result


def _member(node: Any, name: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, override)]
    if isinstance(node, dict):
        return node.get(name)
    raise ConfigError(f"--set {override!r}: {name!r} lies below a value, not a section")


def _index(node: list[Any], name: str, override: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ConfigError(f"--set {override!r}: {name!r} is no index of a list of {len(node)} items")
    return int(name)


def _scalar(text: str) -> Any:
    value = yaml.safe_load(text)
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """One line per problem: where, what, and the nearest known key for an unknown one, or kind for a wrong one."""
    lines = [f"  {_problem(problem, model)}" for problem in error.errors()]
    return f"{source} does not fit {model.__name__}:\n" + "\n".join(lines)


def _problem(problem: ErrorDetails, model: type[BaseModel]) -> str:
    location = problem["loc"]
    where, annotation = _located(model, location)
    match problem["type"]:
        case "extra_forbidden":
            inner = model_in(_located(model, location[:-1])[1])
            known = sorted(inner.model_fields) if inner is not None else []
            return f"{where}: unknown key.{_nearest(location[-1], known)} Known keys: {', '.join(known)}"
        case "union_tag_invalid":
            kinds, given = list(kinds_in(annotation)), problem["ctx"]["tag"]
            return f"{where}.kind: there is no kind {given!r}.{_nearest(given, kinds)} Kinds: {', '.join(kinds)}"
        case "union_tag_not_found":
            return f"{where}: must be a mapping of settings (got {problem['input']!r})"
        case "missing":
            return f"{where or 'config'}: {problem['msg']}"
        case _:
            return f"{where or 'config'}: {problem['msg']} (got {problem['input']!r})"


def _nearest(given: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.3)
    return f" Did you mean {near[0]!r}?" if near else ""


def _located(model: type[BaseModel], location: Sequence[int | str]) -> tuple[str, Any]:
    """A problem's place as it stands in the file, and what is declared there. Pydantic names the kind of a policy as
    one more level (`policies.0.chunks.checkpoint`), which no file has."""
    shown: list[str] = []
    current: Any = model
    for part in location:
        kinds = kinds_in(current)
        if part in kinds:
            current = kinds[str(part)]
            continue
        shown.append(str(part))
        inner = model_in(current)
        if isinstance(part, str) and inner is not None and part in inner.model_fields:
            current = inner.model_fields[part].annotation
    return ".".join(shown), current


def kinds_in(annotation: Any) -> dict[str, type[BaseModel]]:
    """The models of an annotation that are told apart by their kind (`Tag`), by kind; empty where there are none."""
    found: dict[str, type[BaseModel]] = {}
    for argument in get_args(annotation):
        tags = [extra.tag for extra in getattr(argument, "__metadata__", ()) if isinstance(extra, Tag)]
        found |= {tags[0]: argument.__origin__} if tags else kinds_in(argument)
    return found


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The (first) model in an annotation: M, list[M], dict[str, M] or M | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)
