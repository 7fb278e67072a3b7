"use strict";

// Foreign texts (keys, reasons) are set only as textContent, never as markup.
function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  if (className) element.className = className;
  return element;
}

function number(value) {
  return typeof value === "number" ? value.toLocaleString("en") : "–";
}

function definitions(pairs) {
  const list = make("dl");
  for (const [name, value] of pairs) {
    const item = make("div");
    item.append(make("dt", name), make("dd", typeof value === "number" ? number(value) : value ?? "–"));
    list.append(item);
  }
  return list;
}

function table(heads, rows) {
  const table = make("table");
  const head = make("tr");
  for (const text of heads) head.append(make("th", text));
  table.append(head);
  for (const cells of rows) {
    const row = make("tr");
    for (const cell of cells) row.append(make("td", cell ?? "–"));
    table.append(row);
  }
  return table;
}

function label(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function counters(values) {
  return definitions(Object.entries(values).map(([name, value]) => [label(name), value]));
}

function sink(route) {
  const box = make("section");
  box.append(make("h2", "Sink " + route.name));
  if (route.reasons.length === 0) box.append(make("p", "Running", "good"));
  else {
    const list = make("ul", undefined, "bad");
    for (const reason of route.reasons) list.append(make("li", reason));
    box.append(list);
  }
  if (route.kafka_error) {
    const seconds = Math.round(route.kafka_error.age_ms / 1000);
    box.append(make("p", `Last Kafka error, ${number(seconds)} s ago: ${route.kafka_error.message}`, "dim"));
  }
  box.append(definitions([
    ["Partitions: leased / assigned", `${number(route.partitions_leased)} / ${number(route.partitions_assigned)}`],
    ["Pending events", route.pending_events],
    ["Buffered bytes", route.pending_bytes],
    ["Active keys", route.active_keys],
    ["Ambiguous writes", route.ambiguous],
    ["Parked keys", route.parked_keys],
    ["Requests in flight", route.requests_in_flight],
    ["Ledger entries", route.ledger_entries],
  ]));
  const { quota, drain } = route;
  const rate = (n) => n === null ? "no limit" : n >= 1 ? `${number(n)} per second` : `${number(n * 3600)} per hour`;
  const share = quota.share < 1 ? `, ${number(100 * quota.share)} % of the quota of all processes` : "";
  box.append(make("h3", "Quota and drain"), definitions([
    ["Request rate limit", rate(quota.requests_per_second) + share],
    ["In flight / current limit / maximum",
      `${number(quota.in_flight)} / ${number(quota.concurrency_limit)} / ${number(quota.max_concurrency)}`],
    ["Write latency, ms", quota.write_latency_ms],
    ["Requests: normal / urgent / source",
      `${number(quota.requests.normal)} / ${number(quota.requests.urgent)} / ${number(quota.requests.source)}`],
    ["Waiting keys: all / critical", `${number(drain.keys)} / ${number(drain.critical_keys)}`],
    ["Estimated time to drain, s", drain.seconds],
  ]));
  const partitions = Object.entries(route.partitions).sort((a, b) => a[0] - b[0]);
  if (partitions.length > 0) {
    const rows = partitions.map(([partition, status]) =>
      [partition, number(status.watermark), status.blocked_by ? "Blocked: " + status.blocked_by : "Running"]);
    box.append(table(["Partition", "Watermark", "Status"], rows));
  }
  if (route.parked.length > 0) {
    box.append(table(["Parked key", "Reason"], route.parked.map((parked) => [parked.key, parked.reason])));
  }
  if (Object.keys(route.counters).length > 0) box.append(counters(route.counters));
  return box;
}

function source(route) {
  const box = make("section");
  box.append(make("h2", "Source " + route.name));
  const ok = route.state === "polling" || route.state === "standby";
  const state = label(route.state);
  box.append(make("p", route.reason ? `${state}: ${route.reason}` : state, ok ? "good" : "bad"));
  for (const warning of route.warnings) box.append(make("p", warning, "bad"));
  const cursor = route.cursor === null ? null : new Date(route.cursor * 1000).toISOString();
  box.append(definitions([["Cursor", cursor], ["Lag, s", route.lag_seconds], ["Known rows", route.known_rows],
    ["Effective poll interval, s", route.effective_interval_seconds]]));
  box.append(counters(route.counters));
  return box;
}

function show(status) {
  document.getElementById("version").textContent = status.version;
  const ready = document.getElementById("ready");
  const count = status.reasons.length;
  ready.textContent = status.ready ? "Ready" : `Not ready: ${count} ${count === 1 ? "reason" : "reasons"}, listed below`;
  ready.className = status.ready ? "good" : "bad";
  const bridge = status.reasons.filter((r) => r.kind === "bridge").map((r) => make("p", r.reason, "bad"));
  document.getElementById("routes").replaceChildren(
    ...bridge, ...status.sinks.map(sink), ...status.sources.map(source));
  document.getElementById("updated").textContent = "Updated " + new Date(status.time_ms).toISOString();
}

async function refresh() {
  try {
    const response = await fetch("/status", { signal: AbortSignal.timeout(5000) });
    show(await response.json());
  } catch {
    const ready = document.getElementById("ready");
    ready.textContent = "The bridge does not respond; the values below are outdated";
    ready.className = "bad";
  }
  setTimeout(refresh, 2000);
}

refresh();
