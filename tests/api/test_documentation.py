"""The page for people: everything it needs comes from the service."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest


class References(HTMLParser):
    """What a page loads, and what it runs that stands in it."""

    def __init__(self, page):
        super().__init__()
        self.urls, self.inline = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.urls += [given[name] for name in ("src", "href") if name in given]
        if (tag == "script" and "src" not in given) or tag == "style":
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]


@pytest.fixture(scope="module")
def page(shared):
    response = shared.client.get("/docs")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return response


def test_the_page_loads_from_the_service_alone_and_all_of_it_is_there(shared, page):
    found = References(page.text)
    assert found.inline == []
    assert len(found.urls) == 4
    for url in found.urls:
        assert not urlsplit(url).scheme and not urlsplit(url).netloc
        response = shared.client.get(urljoin(str(page.url), url))
        assert response.status_code == 200
        assert response.headers["x-content-type-options"] == "nosniff"
        assert len(response.content) > 50


def test_it_works_behind_a_proxy_that_puts_a_path_in_front(page):
    urls = References(page.text).urls
    assert {urlsplit(urljoin("https://host/budeval/docs", url)).path for url in urls} == {
        f"/budeval/docs/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png", "start.js")
    }


def test_it_shows_the_services_own_document_and_asks_no_validator(shared):
    script = shared.client.get("/docs/start.js").text
    assert 'url: "openapi.json"' in script
    assert "validatorUrl: null" in script
    assert not re.search(r"https?:|//", script)


def test_its_policy_lets_it_talk_to_nobody_else_and_run_nothing_else(page):
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert set(" ".join(policy.values()).split()) == {"'none'", "'self'", "data:"}
    assert page.headers["referrer-policy"] == "no-referrer"


def test_there_is_no_other_page_that_would_load_from_elsewhere(shared):
    for path in ("/redoc", "/docs/oauth2-redirect", "/docs/index.html", "/docs/swagger-ui.js"):
        assert shared.client.get(path).status_code == 404
