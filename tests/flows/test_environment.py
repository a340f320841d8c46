"""Variables that clients of servers read: loopback asks no proxy, and a wrong one is named."""

import os

import httpx
import pytest

from epochal.data.errors import ConfigError
from epochal.flows.environment import check_environment, prepare_environment

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
LOOPBACK = ("http://127.0.0.1:4200", "http://localhost:4200", "http://[::1]:4200")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "")  # put back after the test


def proxy_of(client, url):
    """Whether httpx would ask a proxy for this address."""
    return "Proxy" in repr(client._transport_for_url(httpx.URL(url))._pool)


@pytest.mark.parametrize(
    "no_proxy",
    ["", "10.0.0.0/8,fd00::/8", "[::1]", "::1/128", "*", " example.com , .local", "é.com", "a:b"],
)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://proxy:3128", "socks5://proxy:1080"])
def test_loopback_asks_no_proxy_whatever_the_variables_say(proxy, name, no_proxy, monkeypatch):
    monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    prepare_environment()
    check_environment()
    with httpx.Client() as client:
        assert not any(proxy_of(client, url) for url in LOOPBACK)
        elsewhere = proxy_of(client, "http://prefect.example.org")
    assert elsewhere == (no_proxy != "*")


def test_what_the_user_exempts_stays_exempt(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "example.com,10.0.0.0/8,fd00::/8,[fe80::1],host:8080")
    prepare_environment()
    assert os.environ["NO_PROXY"] == (
        "example.com,10.0.0.0/8,fe80::1,host:8080,127.0.0.1,localhost,::1"
    )
    prepare_environment()
    assert os.environ["NO_PROXY"].count("localhost") == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HTTP_PROXY", "foo://proxy:1", "'foo://proxy:1'; expected the address of a proxy"),
        ("ALL_PROXY", "socks4://proxy:1", "socks4://proxy:1"),
        ("https_proxy", "http://proxy:port", "http://proxy:port"),
        ("HTTPS_PROXY", "http://proxy:99999", "http://proxy:99999"),
        ("SSL_CERT_FILE", "/nowhere/at/all.pem", "there is no '/nowhere/at/all.pem'"),
        ("SSL_CERT_FILE", __file__, "holds no certificates"),
        ("SSL_CERT_DIR", "/nowhere/at/all", "there is no '/nowhere/at/all'"),
        ("SSL_CERT_DIR", __file__, "there is no"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/at/all.pem", "there is no '/nowhere/at/all.pem'"),
        ("AWS_CA_BUNDLE", "/nowhere/at/all.pem", "there is no '/nowhere/at/all.pem'"),
    ],
)
def test_a_variable_that_clients_would_stumble_over_is_named(name, value, said, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        check_environment()
    assert str(caught.value).startswith(f"{name}: ")
    assert said in str(caught.value)
    assert f"unset {name}" in str(caught.value)


def test_the_password_of_a_proxy_is_not_shown(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "foo://user:pa55w0rd@proxy:1")
    with pytest.raises(ConfigError) as caught:
        check_environment()
    assert "pa55w0rd" not in str(caught.value)


def test_a_user_without_a_home_is_told(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("epochal.flows.environment.Path.home", home)
    with pytest.raises(ConfigError, match="HOME: is not set"):
        check_environment()


def test_variables_that_are_right_pass(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "")
    monkeypatch.setenv("HTTPS_PROXY", "user:word@proxy.example.org:3128")
    check_environment()
