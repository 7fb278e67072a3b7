"""Alerts from Kafka to ServiceNow incidents: a typical script.

It reads one event after the other, looks the ticket up by correlation_id, creates or updates it, commits, and retries a
request if the instance is down or throttles it.
"""

import json
import os
import time

import requests
from confluent_kafka import Consumer

URL = os.environ["SERVICENOW_URL"] + "/api/now/table/incident"
LEVELS = {"critical": ("1", "1"), "high": ("2", "1"), "medium": ("2", "2")}

session = requests.Session()
session.auth = (os.environ["SERVICENOW_USER"], os.environ["SERVICENOW_PASSWORD"])
session.headers["Accept"] = "application/json"


def call(method, url, **arguments):
    """Sends a request until it succeeds."""
    delay = 1
    while True:
        try:
            response = session.request(method, url, timeout=70, **arguments)
        except requests.RequestException as error:
            print(f"{method}: {error}", flush=True)
        else:
            if response.status_code < 400:
                return response.json()["result"]
            print(f"{method}: {response.status_code}", flush=True)
            if response.status_code != 429 and response.status_code < 500:
                raise RuntimeError(response.text)
            if "Retry-After" in response.headers:
                time.sleep(int(response.headers["Retry-After"]))
                continue
        time.sleep(delay)
        delay = min(2 * delay, 30)


def handle(event):
    query = {
        "sysparm_query": "correlation_id=" + event["key"],
        "sysparm_fields": "sys_id,state",
        "sysparm_limit": "1",
    }
    found = call("GET", URL, params=query)
    row = {}
    if event["action"] != "note":
        impact, urgency = LEVELS.get(event["severity"], ("3", "2"))
        row.update(short_description=event["title"], impact=impact, urgency=urgency)
    if event.get("note"):
        row["work_notes"] = event["note"]
    state = found[0]["state"] if found else None
    if event["action"] == "resolve":
        row.update(state="6", close_code="Solution provided", close_notes=event["title"])
    elif (event["action"], state) in (("open", "6"), ("acknowledge", "1")):
        row["state"] = "2"
    if found:
        call("PATCH", f"{URL}/{found[0]['sys_id']}", json=row)
    else:
        call("POST", URL, json={**row, "correlation_id": event["key"]})


def main():
    consumer = Consumer({
        "bootstrap.servers": os.environ["KAFKA"],
        "group.id": os.environ["TOPIC"] + ".script",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
    })
    consumer.subscribe([os.environ["TOPIC"]])
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            print(message.error(), flush=True)
            continue
        handle(json.loads(message.value()))
        consumer.commit(message, asynchronous=False)


if __name__ == "__main__":
    main()
