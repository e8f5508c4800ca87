"""Who gets in."""

from __future__ import annotations

import httpx
import pytest
from openai import AuthenticationError
from sqlalchemy import select

from gateway.keys import PREFIX, find_key, is_well_formed, revoke_key
from gateway.tables.tenancy import ApiKey
from policies.contract.tasks import CLAIMS_PATH
from tests.gateway.conftest import LiveGateway
