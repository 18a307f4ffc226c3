// Elements, scales and the three charts. Strings from the runs are inserted as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
const el = (name, attributes = {}, ...children) => put(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => put(document.createElementNS(SVG, name), attributes, children);

function format(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "negative" }; // no minus zero
  return value.toLocaleString("en-US", options).replace("-", "−");
}

/** Digits after the decimal point for a column of values: those of its quantity `key`, or chosen by the largest value. */
function digitsFor(values, key) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (known.every(Number.isInteger)) return 0;
  const largest = Math.max(...known.map(Math.abs));
  return DATA.quantities[key]?.digits ?? (largest >= 1000 ? 0 : largest >= 10 ? 2 : 3);
}

/** Name of an axis. */
const axisLabel = (key) => `${DATA.quantities[key].label} (${DATA.quantities[key].unit})`;

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const finite = (value) => typeof value === "number";

/** About `count` round numbers from low to high, at least `least` apart. */
function ticks(low, high, count = 5, least = 0) {
  const rough = Math.max((high - low) / count, least);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** The range of values, widened on both sides by the fraction `room`. */
function extent(values, room = 0.08) {
  const low = Math.min(...values), high = Math.max(...values);
  const pad = (high - low || Math.abs(high) || 1) * room;
  return [low - pad, high + pad];
}

const linear = ([a, b], [from, to]) => (value) => from + ((value - a) / (b - a)) * (to - from);

// Viridis without its ends, which are invisible on black or on white.
const STOPS = ["#46307e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39"];
function shade(part) {
  const at = Math.min(Math.max(part, 0), 1) * (STOPS.length - 1);
  const i = Math.min(Math.floor(at), STOPS.length - 2);
  const channel = (color, k) => parseInt(color.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mixed = [0, 1, 2].map((k) => Math.round(channel(STOPS[i], k) * (i + 1 - at) + channel(STOPS[i + 1], k) * (at - i)));
  return `rgb(${mixed})`;
}

// A variant's colour, dashes (of curves) and shape (of points) are the same in every chart.
const colour = (i) => `var(--c${i % 6})`;
const dashes = (i) => ["", "7 4", "2 4", "9 3 2 3"][Math.floor(i / 6) % 4];
const SHAPES = [
  "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0Z", "M-5.5 -5.5h11v11h-11Z", "M0 -7L7 5.5H-7Z", "M0 -7.5L7.5 0L0 7.5L-7.5 0Z",
  "M0 7L7 -5.5H-7Z", "M-2.5 -7h5v4.5h4.5v5h-4.5v4.5h-5v-4.5h-4.5v-5h4.5Z",
];
const shape = (i) => SHAPES[(i + Math.floor(i / 6)) % 6]; // colour and shape together repeat after 36 variants

function swatch(i) {
  const line = svg("path", { d: "M0 2H22", stroke: colour(i), "stroke-width": 4, "stroke-dasharray": dashes(i) });
  return svg("svg", { class: "swatch", viewBox: "0 0 22 4", "aria-hidden": "true" }, line);
}

/** Dim marks and rows whose runs are all deselected; `OUT` has the deselected runs. */
const OUT = new Set();
function fade() {
  for (const node of document.querySelectorAll("[data-runs]")) {
    node.classList.toggle("out", node.dataset.runs !== "" && node.dataset.runs.split(" ").every((id) => OUT.has(Number(id))));
  }
}

/** A mark of a run, with a tooltip for pointer and keyboard; a click opens the run. */
function mark(name, attributes, run, text) {
  const key = (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), openRun(run));
  return svg(name, {
    ...attributes, "data-runs": run, tabindex: 0, role: "button", "aria-label": text.replaceAll("\n", ", "), "data-tip": text,
    onclick: () => openRun(run), onkeydown: key,
  });
}

/**
 * A drawing with two axes. `x` and `y` are its scales, `box` is the plot, `marks` is a group that is clipped to the plot
 * and `over` one that is not. The ticks of x are at least `least` apart.
 */
function plane(width, height, xRange, yRange, xLabel, yLabel, title, least = 0) {
  const yTicks = ticks(...yRange, 5), yTexts = yTicks.values.map((value) => format(value, yTicks.digits));
  const left = Math.max(62, 36 + Math.max(...yTexts.map(textWidth))), right = 14, top = 12, bottom = 46; // the title needs 28
  const x = linear(xRange, [left, width - right]), y = linear(yRange, [height - bottom, top]);
  const clip = `clip${document.querySelectorAll("clipPath").length}-${Math.round(width)}`;
  const box = { x: left, y: top, width: width - left - right, height: height - top - bottom };
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
  drawing.append(svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", box))));
  const xTicks = ticks(...xRange, width < 420 ? 4 : 6, least);
  yTicks.values.forEach((value, i) => {
    drawing.append(svg("path", { class: "grid", d: `M${left} ${y(value)}H${width - right}` }));
    drawing.append(svg("text", { class: "soft", x: left - 8, y: y(value) + 4, "text-anchor": "end" }, yTexts[i]));
  });
  for (const value of xTicks.values) {
    const text = format(value, xTicks.digits);
    drawing.append(svg("text", { class: "soft", x: x(value), y: height - bottom + 17, "text-anchor": "middle" }, text));
  }
  drawing.append(svg("path", { d: `M${left} ${height - bottom}H${width - right}`, stroke: "currentColor" }));
  drawing.append(svg("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, xLabel));
  const turned = `translate(14 ${(top + height - bottom) / 2}) rotate(-90)`;
  drawing.append(svg("text", { transform: turned, "text-anchor": "middle" }, yLabel));
  const marks = svg("g", { "clip-path": `url(#${clip})` });
  const over = svg("g");
  drawing.append(marks, over);
  return { drawing, marks, over, x, y, box };
}

const pen = document.createElement("canvas").getContext("2d");
/** Width of a text in a chart, in px. */
function textWidth(text) {
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}
const overlap = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
const within = (a, b) => a.x >= b.x && a.y >= b.y && a.x + a.width <= b.x + b.width && a.y + a.height <= b.y + b.height;

/**
 * A place for a text beside marks that lie between `low` and `high` at the height `y`: the nearest one, to the right or to
 * the left, that is in the box and covers no other place; null if there is none. `shift` is its vertical distance from `y`.
 */
function beside({ low, high, y }, width, box, occupied, height = 14, gap = 10) {
  for (let step = 0; step <= 4; step++) for (const shift of step ? [(step * height) / 2, (-step * height) / 2] : [0]) {
    for (const x of [high + gap, low - gap - width]) {
      const place = { x, y: y + shift - height / 2, width, height };
      if (within(place, box) && !occupied.some((other) => overlap(place, other))) return { ...place, shift };
    }
  }
  return null;
}

/** Rate and distortion of each run; thin lines join the seeds of a model with their mean. */
function ratePlane(comparison, width) {
  const variants = comparison.variants.map((variant, index) => ({ ...variant, index, points: variant.runs
    .map((id) => ({ id, ...DATA.runs[id].numbers })).filter((p) => finite(p.kl) && finite(p.distortion)) }));
  const points = variants.flatMap((variant) => variant.points);
  if (!points.length) return null;
  const height = Math.min(Math.max(width * 0.78, 300), 460);
  const xRange = extent(points.map((p) => p.kl), 0.14), yRange = extent(points.map((p) => p.distortion), 0.14);
  if (points.every((p) => p.kl >= 0)) xRange[0] = Math.max(xRange[0], 0);
  const title = "Rate-distortion plane";
  const { drawing, marks, over, x, y, box } = plane(width, height, xRange, yRange, axisLabel("kl"), axisLabel("distortion"), title);
  const iso = ticks(xRange[0] + yRange[0], xRange[1] + yRange[1], 7);
  const occupied = points.map((p) => ({ x: x(p.kl) - 8, y: y(p.distortion) - 8, width: 16, height: 16 }));
  for (const sum of iso.values) {
    const from = Math.max(xRange[0], sum - yRange[1]), to = Math.min(xRange[1], sum - yRange[0]);
    if (to <= from) continue;
    marks.append(svg("path", { class: "iso", d: `M${x(from)} ${y(sum - from)}L${x(to)} ${y(sum - to)}` }));
    const place = { x: x(to) - 4, y: y(sum - to) - 5, "text-anchor": "end", class: "soft halo" };
    const text = format(-sum, iso.digits), wide = textWidth(text);
    marks.append(svg("text", place, text));
    occupied.push({ x: place.x - wide, y: place.y - 11, width: wide, height: 14 });
  }
  const used = points.map((p) => p.active_units).filter(finite);
  const most = Math.max(...used), least = Math.min(...used);
  const labels = [];
  for (const { label, index, points: own } of variants.filter((variant) => variant.points.length)) {
    const cx = x(mean(own.map((p) => p.kl))), cy = y(mean(own.map((p) => p.distortion)));
    for (const p of own) over.append(svg("path", { d: `M${cx} ${cy}L${x(p.kl)} ${y(p.distortion)}`, class: "thread", "data-runs": p.id }));
    for (const p of own) {
      const fill = finite(p.active_units) ? shade((p.active_units - least) / (most - least || 1)) : "var(--c5)";
      const place = `translate(${x(p.kl)} ${y(p.distortion)})`;
      over.append(mark("path", { d: shape(index), class: "dot", fill, stroke: colour(index), transform: place }, p.id, pointText(p)));
    }
    labels.push({ label, runs: own.map((p) => p.id).join(" "), y: cy, low: Math.min(...own.map((p) => x(p.kl))), high: Math.max(...own.map((p) => x(p.kl))) });
  }
  for (const { label, runs, ...about } of labels) { // the best first; a label without a free place is in the legend only
    const place = beside(about, textWidth(label), box, occupied);
    if (!place) continue;
    occupied.push(place);
    const after = place.x > about.high, [from, to] = after ? [about.high + 7, place.x - 1] : [about.low - 7, place.x + place.width + 1];
    if (place.shift) drawing.append(svg("path", { d: `M${from} ${about.y}L${to} ${about.y + place.shift}`, class: "thread", "data-runs": runs }));
    drawing.append(svg("text", { x: place.x, y: place.y + 11, class: "halo", "data-runs": runs }, label));
  }
  const keys = variants.filter((v) => v.points.length).map((v) => el("span", { class: "key" },
    svg("svg", { viewBox: "-8 -8 16 16", class: "shape", "aria-hidden": "true" }, svg("path", { d: shape(v.index), class: "dot", fill: "none", stroke: colour(v.index) })), v.label));
  const bar = used.length ? el("span", { class: "key" }, `${DATA.quantities.active_units.label} `, format(least, 0),
    ...(most > least ? [el("i", { class: "bar", style: `background: linear-gradient(90deg, ${STOPS})` }), format(most, 0)] : [])) : null;
  return [drawing, el("div", { class: "legend" }, bar, ...keys)];
}

function pointText(p) {
  const lines = [DATA.runs[p.id].label, `ELBO ${format(p.elbo)} nats`, `rate ${format(p.kl)}, distortion ${format(p.distortion)}`];
  return [...lines, ...(finite(p.active_units) ? [`${format(p.active_units, 0)} active units`] : [])].join("\n");
}

/** ELBO over training, thick for validation and thin for training; `state` has the axis and the hidden variants. */
function curves(comparison, width, state, redraw) {
  const column = state.axis === "epoch" ? 0 : 1;
  const all = comparison.variants.flatMap((variant, index) => comparison.runs
    .filter((id) => variant.runs.includes(id)).map((id) => ({ id, index, ...DATA.runs[id].curves })));
  const lines = all.filter((run) => run.val?.length || run.train?.length);
  if (!lines.length) return null;
  const seen = lines.filter((run) => !state.hidden.has(run.index));
  const validation = seen.flatMap((run) => run.val ?? []);
  const values = (validation.length ? validation : lines.flatMap((run) => run.val ?? run.train)).map((p) => p[2]);
  // The first epochs lie far below the rest. The frame begins at the lowest tenth, or at the lowest last value.
  const ends = seen.map((run) => (run.val?.length ? run.val : run.train).at(-1)[2]);
  const tenth = [...values].sort((a, b) => a - b)[Math.floor(values.length / 10)];
  const low = Math.min(tenth, ...ends), high = Math.max(...values, ...seen.flatMap((run) => (run.train ?? []).map((p) => p[2])));
  const last = Math.max(...lines.flatMap((run) => [...(run.val ?? []), ...(run.train ?? [])]).map((p) => p[column]));
  const height = Math.min(Math.max(width * 0.78, 300), 460);
  const xLabel = state.axis === "epoch" ? "epoch" : "optimizer step";
  const { drawing, marks, x, y } = plane(width, height, [0, last], extent([low, high], 0.05), xLabel, `ELBO (${DATA.quantities.elbo.unit})`, "ELBO over training", Math.min(1, last));
  const path = (points) => points.map((p, i) => `${i ? "L" : "M"}${x(p[column]).toFixed(1)} ${y(p[2]).toFixed(1)}`).join("") + "h.01";
  const group = svg("g", { class: "lines" });
  marks.append(group);
  for (const { id, index, val, train } of seen) {
    const look = { stroke: colour(index), "stroke-dasharray": dashes(index) };
    if (train?.length) group.append(svg("path", { ...look, d: path(train), class: "line thin", "data-runs": id }));
    if (!val?.length) continue;
    const text = `${DATA.runs[id].label}\nlast validation ELBO ${format(val.at(-1)[2])} nats`;
    group.append(mark("path", { ...look, d: path(val), class: "line" }, id, text));
  }
  const toggle = (index) => { state.hidden.has(index) ? state.hidden.delete(index) : state.hidden.add(index); redraw(); };
  const shown = [...new Set(lines.map((run) => run.index))];
  const buttons = shown.map((index) => el("button", { type: "button", "data-key": `v${index}`, "aria-pressed": !state.hidden.has(index),
    onclick: () => toggle(index) }, swatch(index), comparison.variants[index].label));
  const axes = ["epoch", "step"].map((axis) => el("button", { type: "button", "data-key": axis, "aria-pressed": state.axis === axis,
    onclick: () => { state.axis = axis; redraw(); } }, `by ${axis}`));
  return [drawing, el("div", { class: "legend" }, ...buttons), el("div", { class: "choice" }, ...axes)];
}

const settingText = (value) => (value === null ? "default" : !finite(value) ? String(value)
  : String(Number.isInteger(value) ? value : Number(value.toPrecision(4))).replace("-", "−"));

/** One axis for each setting that differs and one for the ELBO; a line for each run. `state` has the selections, by axis. */
function parallel(comparison, width, state) {
  const runs = comparison.variants.flatMap((variant, index) => variant.runs.map((id) => ({ id, index, run: DATA.runs[id] })))
    .filter(({ run }) => finite(run.numbers.elbo));
  if (!comparison.keys.length || runs.length < 2) return null;
  const distinct = Math.max(...comparison.keys.map((key) => new Set(runs.map(({ run }) => run.settings[key])).size));
  const wide = Math.max(width, 120 * (comparison.keys.length + 1)), height = Math.max(320, 64 + 18 * distinct), top = 44, bottom = 20;
  const axes = [...comparison.keys.map((key) => settingAxis(key, runs.map(({ run }) => run.settings[key]), [height - bottom, top])),
    elboAxis(runs.map(({ run }) => run.numbers.elbo), [height - bottom, top])];
  const left = Math.max(60, 20 + 6.5 * Math.max(...axes[0].marks.map(([text]) => text.length))), right = 70;
  const at = (i) => left + (i * (wide - left - right)) / (axes.length - 1);
  const drawing = svg("svg", { viewBox: `0 0 ${wide} ${height}`, role: "group", "aria-label": "Parallel coordinates", style: `width: ${wide}px` });
  const group = svg("g", { class: "lines" });
  drawing.append(group);
  axes.forEach((axis, i) => {
    drawing.append(svg("path", { d: `M${at(i)} ${top - 8}V${height - bottom + 8}`, stroke: "currentColor" }));
    drawing.append(svg("text", { x: at(i), y: 16, "text-anchor": "middle" }, axis.name));
    if (axis.unit) drawing.append(svg("text", { x: at(i), y: 30, "text-anchor": "middle", class: "soft" }, axis.unit));
    const last = i === axes.length - 1;
    for (const [text, place] of axis.marks) drawing.append(svg("text",
      { x: at(i) + (last ? 7 : -7), y: place + 4, "text-anchor": last ? "start" : "end", class: "soft halo" }, text));
  });
  for (const { id, index, run } of runs) {
    const places = axes.map((axis) => axis.place(run));
    const bend = (at(1) - at(0)) / 2;
    const d = places.map((y, i) => (i ? `C${at(i - 1) + bend} ${places[i - 1]} ${at(i) - bend} ${y} ${at(i)} ${y}` : `M${at(0)} ${y}`)).join("");
    const text = [run.label, ...comparison.keys.map((key) => `${key}: ${settingText(run.settings[key])}`), `ELBO ${format(run.numbers.elbo)} nats`].join("\n");
    group.append(mark("path", { d, class: "line", stroke: colour(index), "stroke-dasharray": dashes(index) }, id, text));
  }
  const selected = el("span", { class: "key", role: "status" });
  const clear = el("button", { type: "button", "data-key": "clear", onclick: () => { state.brushes.clear(); grips.forEach((grip) => grip.show()); choose(); } }, "Clear");
  const inside = (run) => [...state.brushes].every(([i, [from, to]]) => axes[i].place(run) >= from && axes[i].place(run) <= to);
  const choose = () => {
    for (const id of comparison.runs) OUT[inside(DATA.runs[id]) ? "delete" : "add"](id);
    const kept = comparison.runs.filter((id) => !OUT.has(id)).length;
    selected.textContent = state.brushes.size ? `${kept} of ${comparison.runs.length} runs selected` : "";
    clear.hidden = !state.brushes.size;
    fade();
  };
  const grips = axes.map((_, i) => brush(at(i), [top - 8, height - bottom + 8], state.brushes, i, choose));
  drawing.append(...grips.flatMap((grip) => grip.nodes));
  choose();
  return [el("div", { class: "scroll plain" }, drawing), el("div", { class: "legend" }, selected, clear)];
}

/** Selection on an axis by dragging; a click without a drag clears it. `brushes` keeps it as [from, to] in px. */
function brush(x, [top, bottom], brushes, key, changed) {
  const band = svg("rect", { class: "brush", x: x - 8, width: 16 });
  const grip = svg("rect", { class: "grip", x: x - 18, width: 36, y: top, height: bottom - top, "data-axis": key });
  const show = () => {
    const [from, to] = brushes.get(key) ?? [0, 0];
    put(band, { y: from, height: to - from }, []);
  };
  const at = (event) => {
    const box = grip.getBoundingClientRect();
    return Math.min(Math.max(linear([box.top, box.bottom], [top, bottom])(event.clientY), top), bottom);
  };
  let start = null;
  const drag = (now) => {
    if (start === null) return;
    Math.abs(now - start) > 3 ? brushes.set(key, [Math.min(start, now), Math.max(start, now)]) : brushes.delete(key);
    show();
    changed();
  };
  grip.addEventListener("pointerdown", (event) => { grip.setPointerCapture(event.pointerId); start = at(event); drag(start); });
  grip.addEventListener("pointermove", (event) => drag(at(event)));
  for (const name of ["pointerup", "pointercancel"]) grip.addEventListener(name, () => (start = null));
  show();
  return { show, nodes: [band, grip] };
}

/** The labels that are at least a line's height apart. */
function spaced(marks) {
  let last = Infinity;
  return [...marks].sort((a, b) => b[1] - a[1]).filter(([, place]) => last - place >= 13 && ((last = place), true));
}

function elboAxis(values, span) {
  const range = extent(values, 0.02), scale = linear(range, span), { values: round, digits } = ticks(...range, 5);
  return { name: DATA.quantities.elbo.label, unit: DATA.quantities.elbo.unit, marks: round.map((v) => [format(v, digits), scale(v)]), place: (run) => scale(run.numbers.elbo) };
}

/** Axis of a setting: numbers to scale, logarithmic if they span a factor of 20; other values evenly, the best on top. */
function settingAxis(key, values, span) {
  const distinct = [...new Set(values)];
  distinct.every(finite) ? distinct.sort((a, b) => a - b) : distinct.reverse();
  const name = key.replace(/^(model|trainer|optimizer|data)\./, "");
  const even = (value) => linear([-0.5, distinct.length - 0.5], span)(distinct.indexOf(value));
  const log = distinct.every((v) => finite(v) && v > 0) && distinct.at(-1) / distinct[0] >= 20;
  const by = log ? Math.log : Number;
  const scale = distinct.every(finite) && distinct.length > 1 ? (v) => linear(extent([by(distinct[0]), by(distinct.at(-1))], 0.02), span)(by(v)) : even;
  return { name, unit: log ? "log scale" : "", marks: spaced(distinct.map((v) => [settingText(v), scale(v)])), place: (run) => scale(run.settings[key]) };
}
