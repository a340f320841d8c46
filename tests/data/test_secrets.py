"""Which texts hold a password, and what is shown of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.secrets import has_secret, masked, secret_places

SECRET = "pa55w0rd"
ADDRESSES = (
    "http://user:pa55w0rd@host:5000/path",
    "https://:pa55w0rd@host",
    "https://pa55w0rd@host/x",
    "postgresql+psycopg2://user:pa55w0rd@host/db",
    "s3://u:pa55w0rd@bucket/x",
    "simplecache::s3://u:pa55w0rd@bucket/x",
    "zip://a.zip::https://u:pa55w0rd@host/b.zip",
    "s3://bucket/x?secret=pa55w0rd",
    "s3://bucket/x?a=1&aws_secret_access_key=pa55w0rd&b=2",
    "https://host/x?X-Amz-Signature=pa55w0rd",
    "az://c/x?sig=pa55w0rd",
    "postgresql://host/db?user=u&password=pa55w0rd",
    "sftp://u:p%40pa55w0rd@host/x",
)
OPEN = (
    "http://127.0.0.1:5000", "https://host/a@b", "sftp://user@host/x", "s3://bucket/a:b@c",
    "sqlite:////data/mlflow.db", "./images", "s3://bucket/x?versionId=3", "memory://a/b",
    "postgresql://user@host/db", "a text: with @ signs and token=x", "git@github.com:a/b",
    "https://host/x?design=1", "models:/m-1", "mailto:a@b",
)  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_password_in_an_address_is_found_and_left_out(address):
    assert has_secret(address)
    assert SECRET not in masked(address)
    assert not has_secret(masked(address).replace("…", ""))
    assert masked(f"tried {address!r} twice, {address}").count("…") == 2


@pytest.mark.parametrize("address", OPEN)
def test_other_addresses_stay_as_they_are(address):
    assert not has_secret(address)
    assert masked(address) == address


@pytest.mark.parametrize(
    "options",
    [
        {"secret": SECRET}, {"aws_secret_access_key": SECRET}, {"password": SECRET},
        {"api_key": SECRET}, {"apiKey": SECRET}, {"clientSecret": SECRET}, {"account_key": SECRET},
        {"headers": {"Authorization": f"Bearer {SECRET}"}}, {"sas_token": SECRET},
        {"token": f"hf_{SECRET}{SECRET}"}, {"connection_string": SECRET}, {"list": [ADDRESSES[0]]},
        {"client_kwargs": [{"session_token": SECRET}]},
    ],
    ids=str,
)  # fmt: skip
def test_options_are_named_where_they_hold_a_password(options):
    places = list(secret_places({"train_data": {"args": {"storage_options": options}}}))
    assert len(places) == 1
    assert places[0].startswith("train_data.args.storage_options.")
    assert SECRET not in places[0]


@pytest.mark.parametrize(
    "options",
    [
        {"token": "anon"}, {"token": "mean"}, {"key": "AKIA"}, {"anon": True}, {"secret": None},
        {"secret": ""}, {"password": 3}, {"num_tokens": 7}, {"tokenizer": "bert-base-uncased"},
        {"mask_token": "[MASK]"}, {"secretary": "a long enough text"}, {"key_name": "a"},
        {"monkey": "a"}, {"access_key_id": "AKIA"}, {"pad_token": "<pad>"},
    ],
    ids=str,
)  # fmt: skip
def test_other_options_are_not(options):
    assert list(secret_places(options)) == []


@given(st.text())
def test_masking_twice_is_masking_once(text):
    assert masked(masked(text)) == masked(text)
