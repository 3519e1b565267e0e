import logging
import os

import pytest

from segkit.tracking.brief import BriefRequests

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch):
    """A thread of another test may still hold them."""
    monkeypatch.setattr(BriefRequests, "_users", 0)


def test_settings_last_as_long_as_the_work(monkeypatch):
    monkeypatch.delenv(RETRIES, raising=False)
    monkeypatch.delenv(TIMEOUT, raising=False)
    level = logging.getLogger("urllib3.connectionpool").level
    brief = BriefRequests()
    assert (os.environ[RETRIES], os.environ[TIMEOUT]) == ("2", "20")
    brief.end()
    brief.end()
    assert RETRIES not in os.environ
    assert TIMEOUT not in os.environ
    assert logging.getLogger("urllib3.connectionpool").level == level


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv(RETRIES, "5")
    monkeypatch.delenv(TIMEOUT, raising=False)
    brief = BriefRequests()
    assert os.environ[RETRIES] == "5"
    brief.end()
    assert os.environ[RETRIES] == "5"


def test_the_last_one_puts_back(monkeypatch):
    monkeypatch.delenv(RETRIES, raising=False)
    monkeypatch.delenv(TIMEOUT, raising=False)
    first, second = BriefRequests(), BriefRequests()
    first.end()
    assert os.environ[RETRIES] == "2"
    second.end()
    assert RETRIES not in os.environ
