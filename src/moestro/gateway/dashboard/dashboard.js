// The page of a gateway. Whatever it shows was sent by others: all of it is set as text.
"use strict";

const KEY = "moestro-key";
const KINDS = {
  weights: "weights", cache: "cache", compute: "compute", other: "other",
  anon: "its own", file: "file in RAM", shared: "shared", swap: "swapped out",
  resident: "in RAM", gpu: "in use", later: "later, at most",
};
const FIGURES = [
  ["time_to_first_token", "First token"],
  ["between_tokens", "Between two tokens"],
  ["longest_pause", "Longest pause"],
  ["whole_request", "Whole request"],
  ["queue", "Wait for a stream"],
];
const MOST_EVENTS = 100;
const MOST_TREND = 900;

const at = (id) => document.getElementById(id);
const wait = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// Elements

function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function say(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

const shown = new Map();

// Builds a part anew only if what it shows has changed: a reader keeps selection and place.
function part(id, data, build) {
  const now = JSON.stringify(data);
  if (shown.get(id) === now) return;
  shown.set(id, now);
  at(id).replaceChildren(...[build(data)].flat());
}

function table(heads, rows, caption) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col", text })));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((text, place) =>
    place === 0 ? make("th", { scope: "row", text }) : make("td", { text }))));
  const whole = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
  if (caption) whole.prepend(make("caption", { text: caption }));
  return whole;
}

// Numbers

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function seconds(value) {
  if (!isNumber(value)) return "–";
  if (value < 0.0095) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 100) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  return `${Math.round(value)} s`;
}

function bytes(value) {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  if (size >= 2 ** 30) return `${(value / 2 ** 30).toFixed(size < 2 ** 34 ? 2 : 1)} GiB`;
  if (size >= 2 ** 20) return `${(value / 2 ** 20).toFixed(size < 2 ** 24 ? 1 : 0)} MiB`;
  return `${(value / 1024).toFixed(0)} KiB`;
}

const count = (value) => isNumber(value) ? value.toLocaleString("en") : "–";
const percent = (value) => isNumber(value) ? `${(value * 100).toFixed(1)} %` : "–";
const rate = (value) => isNumber(value) ? value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0) : "–";

function duration(value) {
  const whole = Math.floor(value);
  const days = Math.floor(whole / 86400), hours = Math.floor(whole / 3600) % 24;
  const minutes = Math.floor(whole / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${whole} s`;
}

const clock = (time) => new Date(time * 1000).toLocaleTimeString("en-GB");

// Charts

function svg(tag, props) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, value);
  return element;
}

// A line over equal steps, from `low` to `high`. `says` is for those who cannot see it.
function line(values, low, high, says) {
  const width = 100, height = 40, span = high - low || 1;
  const places = values.map((value, step) => [
    values.length > 1 ? step / (values.length - 1) * width : width,
    height - (value - low) / span * height,
  ].map((place) => place.toFixed(2)).join(" "));
  const picture = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": says,
  });
  for (const height_ of [0, 20, 40]) {
    picture.append(svg("line", { class: "rule", x1: 0, x2: width, y1: height_, y2: height_ }));
  }
  if (places.length > 1) {
    const path = `M${places.join("L")}`;
    picture.append(svg("path", { class: "area", d: `${path}L${width} ${height}L0 ${height}Z` }));
    picture.append(svg("path", { class: "line", d: path }));
  }
  return picture;
}

function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((digit) => digit * power).find((end) => end >= value) ?? value;
}

function smoothed(values) {
  return values.map((_, place) => {
    const near = values.slice(Math.max(0, place - 2), place + 1);
    return near.reduce((sum, value) => sum + value, 0) / near.length;
  });
}

// Overview

let trend = [];

function showStatus(status) {
  const { model, engine, queue, latency, drafts, restarts, speed } = status;
  document.title = `${model.id} – moestro`;
  say("version", status.moestro);
  say("model", model.id);
  say("anatomy", [model.anatomy, model.quantization].filter(Boolean).join(" · "));
  showState(status.state, status.reason);
  say("uptime", `up for ${duration(status.uptime_seconds)}`);

  say("now-rate", rate(speed.tokens_per_second));
  const planned = speed.planned?.decode_tokens_per_second;
  say("now-rate-note", planned && isNumber(planned.expected)
    ? `one stream planned: ${rate(planned.expected)}` : "all streams together");
  say("now-running", `${count(queue.running)} of ${count(queue.streams)}`);
  say("now-running-note", isNumber(queue.cache_used) ? `cache ${percent(queue.cache_used)} full` : "");
  say("now-waiting", count(queue.waiting));
  say("now-waiting-note", `at most ${count(queue.most_waiting)}`);
  say("now-first", seconds(latency.time_to_first_token.p50));
  say("now-drafts", drafts.drafted ? percent(drafts.accepted / drafts.drafted) : "–");
  say("now-drafts-note", drafts.drafted
    ? `${count(drafts.accepted)} of ${count(drafts.drafted)}` : "no drafts so far");
  say("now-restarts", count(restarts.count));
  const replaced = ["replaced", "grew"];  // on purpose: an engine that ended by itself is counted
  const because = (chosen) => Object.entries(restarts.reasons)
    .filter(([reason]) => replaced.includes(reason) === chosen)
    .map(([reason, times]) => `${count(times)} ${reason}`).join(", ");
  say("now-restarts-note", [because(false), because(true) && `besides: ${because(true)}`]
    .filter(Boolean).join("; ") || "none");

  showRate(speed.history);
  showMemory(status.memory);
  showLatency(latency);
  part("requests", status.requests, requestRows);
  showGrowth(status);
  part("events", status.events.slice(-MOST_EVENTS).reverse(), (notes) => notes.map(eventLine));
  showSettings(status);
  showCall(model.id);
}

function showState(state, reason) {
  const badge = at("state");
  badge.className = `badge ${/^[a-z]+$/.test(state) ? state : "unknown"}`;
  say("state", state);
  trouble(reason ?? "");
}

function trouble(text) {
  at("trouble").hidden = !text;
  say("trouble", text);
}

function showRate(history) {
  part("rate-chart", history, (values) => {
    const drawn = smoothed(values), most = Math.max(...drawn, 0), high = roundUp(Math.max(most, 1));
    const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
    const says = `Tokens per second over the last two minutes: ${rate(mean)} on average, `
      + `${rate(most)} at most, ${rate(drawn.at(-1) ?? 0)} now.`;
    return [make("p", { class: "most", "aria-hidden": "true", text: `${high} tokens/s` }),
      line(drawn, 0, high, says)];
  });
  part("rate-table", history, (values) => {
    const rows = [];
    for (let start = 0; start < values.length; start += 10) {
      const ten = values.slice(start, start + 10);
      rows.push([`${values.length - start} to ${values.length - start - ten.length} s ago`,
        rate(ten.reduce((sum, value) => sum + value, 0) / ten.length)]);
    }
    return table(["When", "tokens/s"], rows.reverse());
  });
}

function memoryOf(memory) {
  const host = Object.entries(memory.host).filter(([, size]) => isNumber(size));
  const devices = memory.planned.map((plan) => {
    const name = String(plan.device);
    const isHost = name === "CPU";
    const used = isHost ? host
      : isNumber(memory.devices[name]) ? [["gpu", memory.devices[name]]] : [];
    return {
      name: isHost ? "Host memory" : name,
      capacity: plan.capacity_bytes,
      planned: Object.entries(plan.resident ?? {}).filter(([, size]) => isNumber(size) && size > 0),
      most: plan.total_bytes,
      later: (plan.later ?? []).join(", "),
      used: used.filter(([, size]) => size > 0),
    };
  });
  if (!devices.length && host.length) {
    devices.push({ name: "Host memory", planned: [], used: host.filter(([, size]) => size > 0) });
  }
  return devices;
}

const total = (parts) => parts.reduce((sum, [, size]) => sum + size, 0);

function showMemory(memory) {
  part("memory", memoryOf(memory), (devices) => {
    if (!devices.length) return make("p", { class: "quiet", text: "Nothing is known of it." });
    return devices.map((device) => {
      const start = total(device.planned);
      const more = device.planned.length && device.most > start ? device.most - start : 0;
      const scale = Math.max(start, total(device.used), 1) * (more ? 1.2 : 1.05);
      const planned = more ? [...device.planned, ["later", more]] : device.planned;
      const bars = [["planned", planned], ["in use", device.used]].map(([label, parts]) =>
        make("div", { class: "bar-line" }, make("span", { text: label }), bar(parts, scale,
          `${device.name}, ${label}: ${parts.map(([kind, size]) =>
            `${KINDS[kind] ?? kind} ${bytes(size)}`).join(", ") || "unknown"}`)));
      const room = isNumber(device.capacity) ? `of ${bytes(device.capacity)}` : "";
      const head = make("h3", {}, make("b", { text: device.name }), make("span", {
        text: `planned ${device.planned.length ? bytes(start) : "–"}, in use `
          + `${device.used.length ? bytes(total(device.used)) : "–"} ${room}`,
      }));
      const kinds = [...planned, ...device.used].map(([kind, size]) =>
        make("li", {}, make("i", { class: `c-${kind}` }), `${KINDS[kind] ?? kind} ${bytes(size)}`));
      const note = more ? [make("p", { class: "quiet", text: `Planned is what it takes once it is `
        + `loaded. Up to ${bytes(more)} may come on top: ${device.later}.` })] : [];
      return make("div", { class: "device" }, head, ...bars,
        make("ul", { class: "legend" }, ...kinds), ...note);
    });
  });
  part("memory-table", memoryOf(memory), (devices) => table(["What", "bytes", ""],
    devices.flatMap((device) => [
      ...device.planned.map(([kind, size]) => [`${device.name}, planned: ${kind}`, count(size), bytes(size)]),
      ...(isNumber(device.most)
        ? [[`${device.name}, planned at most`, count(device.most), bytes(device.most)]] : []),
      ...device.used.map(([kind, size]) =>
        [`${device.name}, in use: ${KINDS[kind] ?? kind}`, count(size), bytes(size)]),
    ])));
}

function bar(parts, scale, says) {
  const whole = make("div", { class: "bar", role: "img", "aria-label": says });
  for (const [kind, size] of parts) {
    const piece = make("i", { class: `c-${kind}` });
    piece.style.width = `${size / scale * 100}%`;
    whole.append(piece);
  }
  return whole;
}

function showLatency(latency) {
  const rows = FIGURES.map(([name, label]) => [label,
    ...["p50", "p95", "p99"].map((share) => seconds(latency[name]?.[share]))]);
  part("latency", rows, (lines) => table(["", "50 %", "95 %", "99 %"], lines));
  say("latency-note", latency.requests
    ? `Of ${count(latency.requests)} request${latency.requests === 1 ? "" : "s"}: so many percent took at most so long.`
    : "No request has ended in the last five minutes.");
}

function requestRows(requests) {
  const ends = requests.ended;
  const rows = [
    ["Answered to their end", count(ends.stop ?? 0)],
    ["Answered up to their limit of tokens", count(ends.length ?? 0)],
    ["Given up by their client", count(ends.abort ?? 0)],
    ["Failed", count(ends.error ?? 0)],
    ...Object.entries(requests.failures).map(([code, times]) => [`of these: ${code}`, count(times)]),
    ["Lost their engine and went on", count(requests.interrupted)],
    ["Tokens of prompts", count(requests.prompt_tokens)],
    ["of these from the prompt cache", count(requests.cached_tokens)],
    ["Tokens written", count(requests.generated_tokens)],
  ];
  return table(["What", "how many"], rows);
}

function growthRows(growth) {
  const rows = (growth.places ?? []).flatMap((one) => [
    [`Its own ${one.place} memory`, bytes(one.own_bytes)],
    [`It may own of the ${one.place}`, bytes(one.budget_bytes)],
    ["Growth per request", one.rises ? bytes(one.bytes_per_request) : "none"],
    ["Requests until then", count(one.requests_left)],
  ]);
  return [...rows, ["Replaced for growing", count(growth.replacements)]];
}

// The floor of the engine's memory as the watch has it; without one, what this page saw.
function showGrowth(status) {
  const growth = status.growth, host = status.memory.host;
  const own = isNumber(host.anon) ? host.anon + (host.swap ?? 0) : host.resident;
  if (isNumber(own)) trend = [...trend, [status.at, own]].slice(-MOST_TREND);
  const given = Array.isArray(growth?.points)
    ? growth.points.filter((point) => Array.isArray(point) && point.length > 1 && point.every(isNumber))
    : [];
  const points = given.length ? given : trend;
  if (growth && typeof growth.sentence === "string") say("growth-note", growth.sentence);
  else say("growth-note", isNumber(own)
    ? "The engine's own memory (without pages of files) since this page was opened. No watch runs."
    : "Nothing is known of the engine's memory, and no watch runs.");
  part("growth-chart", points, (values) => {
    if (values.length < 2) return [];
    const sizes = values.map(([, size]) => size), low = Math.min(...sizes), high = Math.max(...sizes);
    const change = sizes.at(-1) - sizes[0];
    const room = Math.max((high - low) * 0.2, high * 0.01);
    return [
      make("p", { class: "most", text: `${bytes(sizes.at(-1))} now, ${change < 0 ? "−" : "+"}`
        + `${bytes(Math.abs(change))} since ${clock(values[0][0])}` }),
      line(sizes, Math.max(low - room, 0), high + room,
        `Memory from ${bytes(sizes[0])} to ${bytes(sizes.at(-1))}, ${bytes(high)} at most.`),
    ];
  });
  say("growth-from", points.length > 1 ? clock(points[0][0]) : "");
  say("growth-to", points.length > 1 ? clock(points.at(-1)[0]) : "");
  part("growth-table", growth ? growthRows(growth) : [],
    (rows) => rows.length ? table(["What", "how much"], rows) : []);
}

function eventLine(note) {
  const time = make("time", { text: clock(note.at) });
  time.dateTime = new Date(note.at * 1000).toISOString();
  time.title = new Date(note.at * 1000).toLocaleString("en-GB");
  const who = note.engine === null ? "engines" : `engine ${note.engine}`;
  const what = make("span", { class: "what" });
  if (note.state !== null) {
    what.append(make("b", { class: note.state === "failed" ? "failed" : "", text: note.state }), " ");
  }
  const again = note.state !== null && note.text.startsWith(`${note.state} `);
  what.append(again ? note.text.slice(note.state.length + 1) : note.text);
  return make("li", {}, time, make("span", { class: "who", text: who }), what);
}

function showNote(note) {
  shown.delete("events");
  at("events").prepend(eventLine(note));
  while (at("events").children.length > MOST_EVENTS) at("events").lastChild.remove();
}

function showSettings(status) {
  const { engine } = status;
  say("engine-line", [engine.family, engine.version, engine.id && `(${engine.id})`,
    engine.number && `– the ${engine.number}${ordinal(engine.number)} engine since the start`,
    isNumber(engine.started_seconds) && `, ready after ${seconds(engine.started_seconds)}`]
    .filter(Boolean).join(" ").replace(" ,", ","));
  say("machine", status.machine ?? "");
  at("given-up").hidden = !status.given_up;
  const because = new Map(status.reasons.map((reason) => [reason.setting, reason]));
  part("settings-list", [status.settings, status.reasons], ([settings]) =>
    Object.entries(settings).map(([name, value]) => {
      const reason = because.get(name);
      const why = reason ? [make("dd", {
        class: "because", text: `${reason.because} (${reason.source})`,
      })] : [];
      return make("div", {}, make("dt", { text: name }),
        make("dd", { class: "value", text: setting(name, value) }), ...why);
    }));
}

function setting(name, value) {
  if (value === null) return "not set";
  if (name.endsWith("_bytes") && value > 0) return bytes(value);
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function ordinal(number) {
  if (number % 100 > 10 && number % 100 < 14) return "th";
  return ["th", "st", "nd", "rd"][number % 10] ?? "th";
}

function showCall(model) {
  const base = new URL("v1", location.href).href;
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] })
    .replaceAll("'", "'\\''");
  const key = sessionStorage.getItem(KEY) ? " \\\n  -H \"Authorization: Bearer $MOESTRO_KEY\"" : "";
  say("base-url", base);
  say("curl", `curl ${base}/chat/completions${key} \\\n  -H 'Content-Type: application/json' \\\n`
    + `  -d '${body}'`);
}

async function copy(button) {
  const text = at(button.dataset.from).textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // without HTTPS a browser has no clipboard for pages
    const range = document.createRange();
    range.selectNodeContents(at(button.dataset.from));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    done = document.execCommand("copy");
  }
  say("said", done ? "Copied." : "It could not be copied: it is selected now.");
  const label = button.firstChild;
  label.textContent = done ? "Copied" : "Selected";
  await wait(2);
  label.textContent = "Copy";
  say("said", "");
}

// Routing

let routingAsked = false;

async function showRouting() {
  if (routingAsked) return;
  routingAsked = true;
  const card = at("routing-card");
  try {
    const answer = await ask("api/routing");
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    card.replaceChildren(...routingParts(await answer.json()));
  } catch (error) {
    routingAsked = false;
    card.replaceChildren(make("p", { text: `It could not be loaded: ${error.message}.` }));
  }
}

function routingParts({ profile }) {
  const head = make("h2", { text: "What the last verify found" });
  if (!profile) {
    return [head,
      make("p", { text: "Nothing is kept of this model file. moestro verify compares it with the "
        + "model it was made from, and keeps how its routers choose:" }),
      make("pre", { text: "moestro verify MODEL --reference REF" }),
      make("p", { class: "quiet", text: "Then load this page again. Files are known by their content." })];
  }
  const verdict = ["pass", "warn", "fail"].includes(profile.verdict) ? profile.verdict : "unknown";
  const parts = [head,
    make("p", {}, make("span", { class: `badge ${verdict}`, text: verdict.toUpperCase() }),
      ` ${profile.candidate} against ${profile.reference}, ${count(profile.tokens)} tokens of `
      + `${(profile.domains ?? []).join(", ")}, ${String(profile.verified_at ?? "").slice(0, 10)}`)];
  const routing = profile.routing;
  const rows = [
    ["Divergence of the answers (nats)", isNumber(profile.kld_mean) ? profile.kld_mean.toPrecision(3) : "–"],
    ["Same most likely token", percent(profile.top1_agreement)],
  ];
  if (routing) {
    rows.push(["Same experts chosen", percent(routing.overlap)],
      ["by chance that would be", percent(routing.chance_overlap)],
      ["Divergence of the routers (nats)",
        isNumber(routing.router_kl) ? routing.router_kl.toPrecision(3) : "–"]);
  }
  parts.push(make("div", { class: "scroll narrow" }, table(["What", "value"], rows)));
  if (!routing || !routing.layers?.length) {
    parts.push(make("p", { text: "There is no routing to show: the model has no experts, or the two "
      + "could not be compared." }));
    return parts;
  }
  return [...parts, ...heatMap(routing), layerTable(routing.layers)];
}

const VIEWS = {
  "this file": (layer) => layer.load,
  "the reference": (layer) => layer.load_reference,
  "difference": (layer) => layer.load.map((value, expert) =>
    isNumber(value) && isNumber(layer.load_reference[expert]) ? value - layer.load_reference[expert] : null),
};

function heatMap(routing) {
  const { layers, experts } = routing;
  const canvas = make("canvas", { role: "img" });
  const under = make("p", { class: "quiet", text: "Point at a place to read it." });
  const low = make("span"), high = make("span"), ramp = make("canvas", { "aria-hidden": "true" });
  const sorted = layers.flatMap((layer) => [...layer.load, ...layer.load_reference])
    .filter(isNumber).sort((one, other) => one - other);
  const most = Math.max(sorted[Math.floor((sorted.length - 1) * 0.995)] ?? 1, 2);
  let view = "this file";

  function draw() {
    const apart = view === "difference";
    const colour = apart ? (value) => diverging(value / most) : (value) => sequential(value / most);
    canvas.width = experts;
    canvas.height = layers.length;
    canvas.style.height = `${Math.min(Math.max(layers.length * 12, 48), 420)}px`;
    paint(canvas, layers.map(VIEWS[view]), colour);
    canvas.setAttribute("aria-label", `Load of ${experts} experts in ${layers.length} layers, `
      + `${view}, as multiples of the average. The table below has the figures by layer.`);
    ramp.width = 64;
    ramp.height = 1;
    const steps = [...Array(64).keys()];
    paint(ramp, [steps.map((step) => apart ? (step / 31.5 - 1) * most : step / 63 * most)], colour);
    low.textContent = apart ? `−${most.toFixed(1)}` : "0";
    high.textContent = `${apart ? "+" : ""}${most.toFixed(1)} × the average load`;
  }

  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const expert = Math.min(Math.max(Math.floor((event.clientX - box.left) / box.width * experts), 0), experts - 1);
    const row = Math.floor((event.clientY - box.top) / box.height * layers.length);
    const layer = layers[Math.min(Math.max(row, 0), layers.length - 1)];
    const value = VIEWS[view](layer)[expert];
    under.textContent = `Layer ${layer.layer}, expert ${expert}: `
      + `${isNumber(value) ? `${value.toFixed(2)} ×` : "unknown"} (${view})`;
  });

  const choice = make("fieldset", { class: "choice" }, make("legend", { text: "Show" }));
  for (const name of Object.keys(VIEWS)) {
    const input = make("input", { type: "radio", name: "view" });
    input.checked = name === view;
    input.addEventListener("change", () => { view = name; draw(); });
    choice.append(make("label", {}, input, name));
  }
  draw();
  return [make("h2", { text: "How busy each expert is" }), choice,
    make("p", { class: "axis", text: "A row for each layer, the first one on top; experts from left to right." }),
    canvas, make("div", { class: "scale" }, low, ramp, high), under];
}

function paint(canvas, rows, colour) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  rows.forEach((row, y) => row.slice(0, canvas.width).forEach((value, x) => {
    image.data.set(isNumber(value) ? [...colour(value), 255] : [128, 128, 128, 255],
      (y * canvas.width + x) * 4);
  }));
  context.putImageData(image, 0, 0);
}

const mixed = (one, other, share) => one.map((value, place) =>
  Math.round(value + (other[place] - value) * Math.min(Math.max(share, 0), 1)));
const DARK = [13, 8, 60], MIDDLE = [180, 54, 90], BRIGHT = [252, 230, 120];
const sequential = (share) => share < 0.5
  ? mixed(DARK, MIDDLE, share * 2) : mixed(MIDDLE, BRIGHT, share * 2 - 1);
const diverging = (share) => mixed([245, 245, 245], share < 0 ? [0, 90, 160] : [200, 70, 0],
  Math.abs(share));

function layerTable(layers) {
  const rows = layers.map((layer) => [`${layer.layer}`, percent(layer.overlap),
    isNumber(layer.router_kl) ? layer.router_kl.toPrecision(2) : "–",
    isNumber(layer.effective_experts) ? layer.effective_experts.toFixed(1) : "–",
    isNumber(layer.effective_experts_reference) ? layer.effective_experts_reference.toFixed(1) : "–",
    isNumber(layer.max_load) ? layer.max_load.toFixed(2) : "–", count(layer.lost?.length ?? 0)]);
  return make("details", { open: "" }, make("summary", { text: "All layers in numbers" }),
    make("div", { class: "scroll" }, table(["layer", "same experts", "router KL",
      "effective experts", "of the reference", "busiest / average", "lost"], rows)));
}

// The connection

class KeyNeeded extends Error {}

async function ask(path, signal) {
  const key = sessionStorage.getItem(KEY);
  const answer = await fetch(path, {
    headers: key ? { authorization: `Bearer ${key}` } : {},
    cache: "no-store", credentials: "omit", signal,
  });
  if (answer.status === 401 || answer.status === 403) throw new KeyNeeded(await why(answer));
  return answer;
}

async function why(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return "";
  }
}

function askForKey(reason) {
  sessionStorage.removeItem(KEY);
  at("main").hidden = true;
  at("key-form").hidden = false;
  say("key-why", reason || "This service asks for an API key with the scope “metrics”.");
  say("state", "locked");
  at("state").className = "badge unknown";
  trouble("");
  at("key").focus();
}

async function* serverEvents(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const name = /^event: (.*)$/m.exec(event)?.[1], data = /^data: (.*)$/m.exec(event)?.[1];
      if (name && data) yield [name, JSON.parse(data)];
    }
  }
}

let current = null;

function shownAgain() {
  return new Promise((done) => {
    if (!document.hidden) done();
    else document.addEventListener("visibilitychange", done, { once: true });
  });
}

// Follows the events for as long as the page is seen; tells who looks when they stop.
async function follow() {
  let pause = 1;
  for (;;) {
    await shownAgain();
    current = new AbortController();
    try {
      const status = await ask("api/status", current.signal);
      if (!status.ok) throw new Error(`HTTP ${status.status}`);
      const first = await status.json();
      at("key-form").hidden = true;
      at("main").hidden = false;
      showStatus(first);
      const events = await ask("api/events", current.signal);
      if (!events.ok) {  // too many listen: look now and then instead
        await wait(5);
        continue;
      }
      pause = 1;
      for await (const [name, data] of serverEvents(events)) {
        if (name === "status") showStatus(data);
        else if (name === "note") showNote(data);
      }
    } catch (error) {
      if (error instanceof KeyNeeded) {
        askForKey(error.message);
        return;
      }
    }
    if (document.hidden) continue;
    at("state").className = "badge lost";
    say("state", "no connection");
    trouble("The service does not answer. What is shown is the last that was heard of it.");
    await wait(pause);
    pause = Math.min(pause * 2, 15);
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) current?.abort();
});

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("key").value.replace(/[^\x21-\x7e]/g, ""));
  at("key").value = "";
  at("key-form").hidden = true;
  say("state", "connecting");
  follow();
});

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => copy(button));
}

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    at(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (tab.id === "tab-routing") showRouting();
}

tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(place + step + tabs.length) % tabs.length];
    choose(next);
    next.focus();
  });
});

follow();
