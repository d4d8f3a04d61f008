"""The service's own page: its OpenAPI document as plain HTML, which needs no script and nothing from elsewhere."""

from __future__ import annotations

from typing import Any

import jinja2

_TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ info.title }} {{ info.version }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { margin: 2rem 0 .2rem; font-size: 1.05rem } code, pre { font-family: ui-monospace, monospace; font-size: .9rem }
pre { background: #f3f5f7; padding: .6rem; white-space: pre-wrap }
td { padding: .1rem .8rem .1rem 0; vertical-align: top }
</style>
<h1>{{ info.title }} {{ info.version }}</h1>
<p>Which action does a video show? An example, if the service has an API key and an adapter called gestures:</p>
<pre>curl -H "Authorization: Bearer KEY" -F file=@clip.mp4 -F adapter=gestures http://HOST:PORT/v1/classify</pre>
<p>The same as JSON: <a href="openapi.json">openapi.json</a>.</p>
{% for path, methods in paths.items() %}{% for method, route in methods.items() %}
<h2><code>{{ method | upper }} {{ path }}</code></h2>
<p>{{ route.description or route.summary }}</p>
<table>{% for name, text in fields(route).items() %}
<tr><td><code>{{ name }}</code></td><td>{{ text }}</td></tr>{% endfor %}</table>
{% endfor %}{% endfor %}
</html>
"""


def page(document: dict[str, Any]) -> str:
    """An OpenAPI document -> HTML: each route with what it is for and the fields it takes."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_TEMPLATE).render(info=document["info"], paths=document["paths"], fields=_fields)


def _fields(route: dict[str, Any]) -> dict[str, Any]:
    """What a route takes, in its path, its query or its form: name -> description."""
    found = {each["name"]: {"description": f"in the {each['in']}"} for each in route.get("parameters", ())}
    for content in route.get("requestBody", {}).get("content", {}).values():
        found |= content["schema"].get("properties", {})
    return {name: field.get("description", "") for name, field in found.items()}
