"""The fixture that other tests trust to see a socket: it has to see one."""

import socket

import pytest


def test_an_address_elsewhere_is_refused_and_remembered(no_network):
    with socket.socket() as s, pytest.raises(OSError, match=r"refused 192\.0\.2\.1"):
        s.connect(("192.0.2.1", 80))
    assert no_network == ["192.0.2.1"]
    no_network.clear()


def test_a_name_elsewhere_is_not_even_looked_up(no_network):
    with pytest.raises(OSError, match=r"refused example\.org"):
        socket.create_connection(("example.org", 443))
    assert no_network == ["example.org"]
    no_network.clear()


def test_this_machine_is_allowed(no_network):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    assert no_network == []
