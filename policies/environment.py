"""Settings from the environment, with errors that name the variable."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from policies.errors import ConfigurationError

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def read_settings(kind: type[SettingsT]) -> SettingsT:
    """The settings of this process.

    Raises:
        ConfigurationError: naming every variable that is missing or wrong.
    """
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        wrong = [
            f"{prefix}{str(item['loc'][0]).upper()}: {item['msg']}" if item["loc"] else item["msg"]  # of several, none
            for item in error.errors()
        ]
        raise ConfigurationError("; ".join(wrong)) from error
