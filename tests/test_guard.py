import pytest

from qaeval.chat.guard import check_host, is_internal
from qaeval.errors import EndpointError


def location(url: str, *addresses: str, allow: tuple[str, ...] = ()) -> tuple[str, bool]:
    endpoint = check_host(url, allow_external=allow, resolver=lambda _: addresses)
    return endpoint.host, endpoint.external


def refusal(url: str, *addresses: str, allow: tuple[str, ...] = ()) -> str:
    with pytest.raises(EndpointError) as raised:
        location(url, *addresses, allow=allow)
    return str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.0.9",
        "::1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "fd00::1",
        "fc00::1",
        "::ffff:10.0.0.1",
    ],
)
def test_addresses_of_the_users_own_network_are_internal(address: str) -> None:
    assert is_internal(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.15.0.1",
        "172.32.0.1",
        "192.169.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "11.0.0.1",
        "0.0.0.0",  # noqa: S104 - not bound
        "::",
        "2001:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "ff02::1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "fec0::1",
    ],
)
def test_all_other_addresses_are_external(address: str) -> None:
    assert not is_internal(address)


def test_a_name_inside_is_allowed() -> None:
    assert location("http://GPU-1.cluster.local:8000/v1", "10.0.0.5", "fd00::5") == (
        "gpu-1.cluster.local",
        False,
    )


def test_a_name_outside_is_refused_with_the_line_to_add() -> None:
    message = refusal("https://api.example.com/v1", "93.184.216.34")
    assert "'api.example.com' resolves to 93.184.216.34" in message
    assert "allow_external: [api.example.com]" in message


def test_a_name_both_inside_and_outside_is_refused() -> None:
    assert "and to addresses inside" in refusal("http://twice.example/v1", "10.0.0.1", "93.184.216.34")


@pytest.mark.parametrize(
    "entry", ["api.example.com", "API.Example.com.", "api.example.com:443", "https://api.example.com"]
)
def test_a_host_that_the_user_named_is_external_but_allowed(entry: str) -> None:
    assert location("https://api.example.com/v1", "93.184.216.34", allow=(entry,)) == (
        "api.example.com",
        True,
    )


@pytest.mark.parametrize("entry", ["example.com", "api.example.com.evil.org", "*", ""])
def test_only_the_very_host_is_allowed(entry: str) -> None:
    assert "allow_external" in refusal("https://api.example.com/v1", "93.184.216.34", allow=(entry,))


def test_a_named_host_inside_is_not_external() -> None:
    assert location("http://gpu/v1", "10.0.0.5", allow=("gpu",)) == ("gpu", False)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://127.1/v1", "http://2130706433/v1", "http://0x7f.1/v1"]
)
def test_every_spelling_of_loopback_is_looked_up(url: str) -> None:
    endpoint = check_host(url, allow_external=())
    assert endpoint.addresses == ("127.0.0.1",)
    assert not endpoint.external


def test_every_spelling_of_a_public_address_is_looked_up() -> None:
    with pytest.raises(EndpointError, match=r"resolves to 8\.8\.8\.8"):
        check_host("http://134744072/v1", allow_external=())


def test_an_address_to_listen_on_is_not_one_to_ask() -> None:
    assert "127.0.0.1" in refusal("http://0.0.0.0:8000/v1", "0.0.0.0")  # noqa: S104 - not bound


@pytest.mark.parametrize(
    "url",
    [
        "ftp://10.0.0.1",
        "file:///etc/passwd",
        "10.0.0.1:8000/v1",
        "localhost:8000",
        "",
        "http://",
        "http:///v1",
        "http://10.0.0.1:99999/v1",
        "http://[::1/v1",
        "unix:///run/x.sock",
        "http://10.0.0.1\\@8.8.8.8/v1",
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    assert "expected a URL" in refusal(url, "10.0.0.1")


@pytest.mark.parametrize(
    "url",
    ["http://me:hush@10.0.0.1/v1", "http://:hush@10.0.0.1/v1", "ftp://me:hush@h", "http://me:hush@[bad"],
)
def test_credentials_in_a_url_are_refused_and_masked(url: str) -> None:
    message = refusal(url, "10.0.0.1")
    assert "***@" in message
    assert "hush" not in message


@pytest.mark.parametrize("url", ["http://10.0.0.1/v1?key=hush", "http://10.0.0.1/v1#hush"])
def test_a_query_is_refused_unshown(url: str) -> None:
    assert "hush" not in refusal(url, "10.0.0.1")


def test_the_host_is_the_one_that_the_client_will_ask() -> None:
    hosts: list[str] = []
    check_host(
        "http://faß.example./v1", allow_external=(), resolver=lambda host: hosts.append(host) or ["10.0.0.1"]
    )
    assert hosts == ["xn--fa-hia.example."]


def test_a_name_without_addresses_is_an_endpoint_error() -> None:
    assert "'gpu'" in refusal("http://gpu/v1")
    with pytest.raises(EndpointError, match=r"gpu\.invalid"):
        check_host("http://gpu.invalid/v1", allow_external=())


@pytest.mark.parametrize(
    "address",
    [
        "169.254.1.1",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
    ],
)
def test_link_local_and_metadata_addresses_are_refused_even_where_the_host_is_allowed(address: str) -> None:
    assert address in refusal("http://gpu/v1", "10.0.0.1", address)
    assert address in refusal("http://gpu/v1", address, allow=("gpu",))
