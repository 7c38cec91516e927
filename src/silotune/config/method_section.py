"""The section ``method``: each method's own class says which keys it has, and checks them.

A section is read by the model of the method that it names: the keys of all methods, those of the
method and, under ``aggregation``, those of the rule. A key that is left out or null has the
method's default. Other keys are kept aside, and ``method_rules`` says whose they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, create_model
from pydantic.fields import FieldInfo

from silotune.methods import Method
from silotune.methods.options import (
    Option,
    options,
    own_options,
    rule_options,
)
from silotune.methods.registry import built_in, known, lenders

from .sections import STRICT, AsTuple, Name, Sorted

DEFAULT = "ffa-lora"


class MethodConfig(BaseModel):
    """The federated method and its low-rank adapters; the names are those of PEFT."""

    model_config = ConfigDict(**STRICT | {"extra": "allow"})

    name: str = Field(
        default=DEFAULT,
        description="What is trained, what is shared, and how the server combines it: see "
        "[methods](methods.md), or `silotune methods`. A method of your own is named by where its "
        "class is, `my_package.my_module:MyMethod`. auto: name and options of the method that did "
        "best where it was measured nearest by public facts, as `defaults: auto` for all keys.",
    )
    aggregation: str | None = Field(
        default=None,
        description="Combine as that method does, in place of averaging A and B by themselves; "
        "its options may be set too. `silotune methods` says which methods can.",
    )

    @property
    def title(self) -> str:
        """For people: ``lora-rite``, or ``lora-rite combined as fedex-lora``."""
        return f"{self.name} combined as {self.aggregation}" if self.aggregation else self.name

    @property
    def chosen(self) -> type[Method]:
        """The method's class."""
        return known()[self.name]

    def build(self) -> Method:
        """The method that the section chooses, as a program would write it.

        Raises:
            ValueError: naming the option that is wrong.
        """
        rule = None
        if self.aggregation:
            lender = known()[self.aggregation]
            rule = lender(**self._given(rule_options(lender)))
        return self.chosen(**self._given(options(self.chosen)), aggregation=rule)

    def given(self, option: str) -> Any:
        """What an option is set to; None where it is not, or is none of the method's."""
        return getattr(self, option) if option in type(self).model_fields else None

    def strange(self) -> Mapping[str, object]:
        """Keys that are set and are none of the method's."""
        extra = self.model_extra or {}
        return {key: value for key, value in extra.items() if value is not None}

    def _given(self, keys: Iterable[str]) -> dict[str, Any]:
        return {key: value for key in keys if (value := self.given(key)) is not None}


def read_section(values: object) -> object:
    """A section as its method reads it; whatever is no mapping is left to pydantic.

    Raises:
        pydantic.ValidationError: with every key that is wrong.
    """
    if not isinstance(values, dict):
        return values
    model = section_model(values.get("name", DEFAULT), values.get("aggregation"))
    unset = {
        key for key, value in values.items() if value is None and key not in model.model_fields
    }
    others = {option for method in known().values() for option in own_options(method)}
    return model.model_validate({k: v for k, v in values.items() if k not in unset & others})


Section = SerializeAsAny[Annotated[MethodConfig, BeforeValidator(read_section)]]
"""The type of the key ``method``."""


def section_model(name: object, aggregation: object = None) -> type[MethodConfig]:
    """The model that reads the section of a method; of no method in particular if there is none.

    Args:
        name: of the method.
        aggregation: of the method in whose way it is to combine.
    """
    method = known().get(name) if isinstance(name, str) else None
    lender = lenders().get(aggregation) if isinstance(aggregation, str) else None
    return _model((str(name),) if method else tuple(known()), method, lender)


def method_fields() -> Mapping[str, FieldInfo]:
    """Every key of the section for the methods of ours, those of all methods first."""
    fields = dict(_model(tuple(built_in()), None, None).model_fields)
    for name, method in built_in().items():
        fields |= {
            k: f for k, f in _model((name,), method, None).model_fields.items() if k not in fields
        }
    return fields


def field_of(option: str) -> FieldInfo | None:
    """The field of a key that some method has, somebody's own among them."""
    models = (_model((name,), method, None) for name, method in known().items())
    return next((m.model_fields[option] for m in models if option in m.model_fields), None)


@cache
def _model(
    names: tuple[str, ...], method: type[Method] | None, lender: type[Method] | None
) -> type[MethodConfig]:
    own = own_options(method) if method else {}
    fields = {key: _plain(option) for key, option in options(method or Method).items()}
    fields |= {key: _nullable(option) for key, option in own.items()}
    if lender:
        fields |= {k: _nullable(o) for k, o in rule_options(lender).items() if k not in own}
    told = MethodConfig.model_fields
    return create_model(
        f"{method.__name__ if method else 'Method'}Section",
        __base__=MethodConfig,
        __doc__=MethodConfig.__doc__,
        name=(_one_of(names), _described(told["name"], DEFAULT)),
        aggregation=(_one_of(tuple(lenders())) | None, _described(told["aggregation"], None)),
        **fields,
    )


def _one_of(names: tuple[str, ...]) -> Any:
    return Literal[names]


def _described(told: FieldInfo, default: object) -> Any:
    return Field(default=default, description=told.description)


def _plain(option: Option) -> Any:
    about = option.about
    examples = list(about.examples) or None
    default = Field(default=option.default, description=about.text, examples=examples)
    return _as_yaml(option.hint), default


def _nullable(option: Option) -> Any:
    hint = _as_yaml(option.hint)
    return (
        hint if _takes_none(hint) else hint | None,
        Field(default=None, description=option.about.text),
    )


def _takes_none(hint: Any) -> bool:
    inner = get_args(hint)
    if get_origin(hint) is Annotated:
        return _takes_none(inner[0])
    return type(None) in inner


def _as_yaml(hint: Any) -> Any:
    """A type as YAML gives it: lists for tuples, names that may look like numbers, any order."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[(_as_yaml(inner[0]), *inner[1:])]
    if origin is tuple:
        return Annotated[hint, AsTuple]
    if origin is dict and inner[0] is str:
        return Annotated[dict[Name, inner[1]], Sorted]  # type: ignore[valid-type]
    if inner and origin is not Literal:
        return Union[tuple(map(_as_yaml, inner))]  # noqa: UP007
    return hint
