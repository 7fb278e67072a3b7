"use strict";

// Texts of others (keys, reasons) are only ever set as textContent, never as markup.
function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  if (kind) element.className = kind;
  return element;
}

function number(value) {
  return typeof value === "number" ? value.toLocaleString("en") : "–";
}

function numbers(pairs) {
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

function counts(of) {
  return numbers(Object.entries(of).map(([name, value]) => [name.replaceAll("_", " "), value]));
}

function sink(route) {
  const box = make("section");
  box.append(make("h2", "sink " + route.name));
  if (route.reasons.length === 0) box.append(make("p", "works", "good"));
  else {
    const list = make("ul", undefined, "bad");
    for (const reason of route.reasons) list.append(make("li", reason));
    box.append(list);
  }
  if (route.trouble) {
    const ago = Math.round(route.trouble.ago_ms / 1000);
    box.append(make("p", `Kafka, ${number(ago)} s ago: ${route.trouble.what}`, "dim"));
  }
  box.append(numbers([
    ["partitions, leased / held", `${number(route.partitions_leased)} / ${number(route.partitions_held)}`],
    ["unresolved events", route.unresolved_events],
    ["their bytes", route.unresolved_bytes],
    ["lanes", route.lanes],
    ["in doubt", route.in_doubt],
    ["keys parked", route.keys_parked],
    ["requests in flight", route.requests_in_flight],
    ["ledger entries", route.ledger_entries],
  ]));
  const plan = route.plan;
  const per = (n) => n === null ? "no limit" : n >= 1 ? `${number(n)} a second` : `${number(n * 3600)} an hour`;
  const share = plan.share < 1 ? `, ${number(100 * plan.share)} % of all members'` : "";
  box.append(make("h3", "quota and backlog"), numbers([
    ["requests, in the long run", per(plan.requests_per_second) + share],
    ["requests out / at once / at most",
      `${number(plan.requests_out)} / ${number(plan.requests_at_once)} / ${number(plan.requests_at_once_most)}`],
    ["a write takes, ms", plan.write_latency_ms],
    ["spent: plain / urgent / sources",
      `${number(plan.spent.sink)} / ${number(plan.spent.urgent)} / ${number(plan.spent.source)}`],
    ["keys that wait / critical", `${number(plan.backlog_keys)} / ${number(plan.backlog_critical_keys)}`],
    ["done in about, seconds", plan.backlog_seconds],
  ]));
  const partitions = Object.entries(route.partitions).sort((a, b) => a[0] - b[0]);
  if (partitions.length > 0) {
    const rows = partitions.map(([p, s]) => [p, number(s.watermark), s.held ? "held: " + s.held : "works"]);
    box.append(table(["partition", "watermark", ""], rows));
  }
  if (route.parked.length > 0) {
    box.append(table(["parked key", "why"], route.parked.map((p) => [p.key, p.reason])));
  }
  if (Object.keys(route.counts).length > 0) box.append(counts(route.counts));
  return box;
}

function source(route) {
  const box = make("section");
  box.append(make("h2", "source " + route.name));
  const well = route.state === "polling" || route.state === "standby";
  box.append(make("p", route.reason ? `${route.state}: ${route.reason}` : route.state, well ? "good" : "bad"));
  for (const finding of route.findings) box.append(make("p", finding, "bad"));
  const cursor = route.cursor === null ? null : new Date(route.cursor * 1000).toISOString();
  box.append(numbers([["cursor", cursor], ["lag, seconds", route.lag_seconds], ["rows known", route.rows],
    ["polls stretched to, seconds", route.stretched_seconds]]));
  box.append(counts(route.counts));
  return box;
}

function show(status) {
  document.getElementById("version").textContent = status.version;
  const ready = document.getElementById("ready");
  ready.textContent = status.ready ? "ready" : `not ready: ${status.reasons.length} reason(s) below`;
  ready.className = status.ready ? "good" : "bad";
  const whole = status.reasons.filter((r) => r.kind === "bridge").map((r) => make("p", r.reason, "bad"));
  document.getElementById("routes").replaceChildren(
    ...whole, ...status.sinks.map(sink), ...status.sources.map(source));
  document.getElementById("fresh").textContent = "as of " + new Date(status.at).toISOString();
}

async function refresh() {
  try {
    const answer = await fetch("/status", { signal: AbortSignal.timeout(5000) });
    show(await answer.json());
  } catch {
    const ready = document.getElementById("ready");
    ready.textContent = "the bridge does not answer; what stands below is old";
    ready.className = "bad";
  }
  setTimeout(refresh, 2000);
}

refresh();
