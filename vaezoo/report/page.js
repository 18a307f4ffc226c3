// The page: heading, charts, tables and the details of a run. Strings from the runs are inserted as text, never as markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const layouts = []; // functions that adapt the page to its width
const about = (key) => DATA.quantities[key];
const capital = (text) => text[0].toUpperCase() + text.slice(1).replaceAll("_", " ");
const finite = (value) => typeof value === "number";
/** Head of a number's column: its label, capitalised unless it is the formula log p(...). */
const labelOf = (key) => (about(key).label.startsWith("log p(") ? about(key).label : capital(about(key).label));

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
const el = (name, attributes = {}, ...children) => put(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => put(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

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

/** The line and the mark of a variant in every chart. */
const swatch = (comparison, i) => svg("svg", { class: "swatch", viewBox: "-16 -8 32 16", "aria-hidden": "true", stroke: `var(--c${i % 6})` },
  svg("path", { d: "M-16 0H16", "stroke-width": 2, "stroke-dasharray": comparison.dashes[i] }),
  svg("path", { d: comparison.shapes[i], transform: "scale(5.5)", "vector-effect": "non-scaling-stroke" }));

/**
 * A table that is sorted by a click on a head. A column has head, unit, value(row) to sort by and cell(row). As many
 * columns as fit are shown, or the `leading` ones if the page is narrow, all of them after a click. A row has the
 * indices of its runs.
 */
function table(columns, rows, caption, leading = columns.length) {
  const body = el("tbody");
  const lines = new Map(rows.map((row) => [row, el("tr", { class: row.open ? "open" : null, onclick: row.open, ...pointing(row.runs) },
    ...columns.map((column) => put(column.cell(row), { "data-head": [column.head, column.unit && `(${column.unit})`].filter(Boolean).join(" ") }, [])))]));
  const draw = (order) => body.replaceChildren(...order.map((row) => lines.get(row)));
  const heads = columns.map((column) => el("th", { scope: "col", class: column.text ? "text" : null, title: column.meaning || null },
    column.value ? el("button", { type: "button", onclick: () => sort(column) }, column.head) : column.head,
    ...[column.unit, column.protocol].filter(Boolean).map((text) => el("small", {}, text))));
  function sort(column) {
    const head = heads[columns.indexOf(column)];
    const first = column.text || column.better < 0 ? "ascending" : "descending";
    const now = head.getAttribute("aria-sort");
    const way = now === null ? first : now === "ascending" ? "descending" : "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", way);
    const sign = way === "ascending" ? 1 : -1;
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    const missing = (row) => column.value(row) === null || column.value(row) === undefined;
    draw([...rows].sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(column.value(a), column.value(b)))));
  }
  draw(rows);
  const box = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body));
  const narrow = matchMedia("(max-width: 600px)"); // there each row is a card
  const all = el("button", { type: "button", "aria-pressed": false, onclick: () => { all.setAttribute("aria-pressed", box.classList.toggle("all")); fit(); } },
    `All ${columns.filter((column) => column.value && !column.text).length} columns of numbers`);
  function fit() {
    if (box.classList.contains("all")) return;
    const cells = columns.map((_, i) => [heads[i], ...[...lines.values()].map((line) => line.children[i])]);
    cells.flat().forEach((cell) => cell.classList.remove("more"));
    all.hidden = narrow.matches ? columns.length <= leading : box.scrollWidth <= box.clientWidth;
    for (let i = columns.length - 1; i > 2 && (narrow.matches ? i >= leading : box.scrollWidth > box.clientWidth); i -= 1) cells[i].forEach((cell) => cell.classList.add("more"));
  }
  layouts.push(fit);
  return el("div", {}, el("div", { class: "choice" }, all), box);
}

/** A comparison's columns of numbers; `of(key, better)` gives the value and the cell of a row. */
const numberColumns = (comparison, keys, of) => keys.map((key) => ({
  head: labelOf(key), ...about(key), protocol: comparison.protocols[key], ...of(key, about(key).better),
}));

/** A model's name, with its line and mark in the charts, and a sign if it has collapsed. */
const label = (comparison, index) => el("span", { class: "key" }, swatch(comparison, index), comparison.variants[index].label,
  comparison.variants[index].collapsed ? el("a", { class: "sign", href: `#collapse${DATA.comparisons.indexOf(comparison)}` }, "collapsed") : null);
const withHalf = (text, half) => [text, half === null ? null : el("span", { class: "pm" }, ` ± ${half}`)].filter((part) => part !== null);

/** Means over seeds, each with its interval. */
function variantTable(comparison) {
  const rows = comparison.variants.map((variant, index) => ({ ...variant, index }));
  const numbers = numberColumns(comparison, comparison.columns, (key, better) => {
    const values = rows.map((row) => row.numbers[key]?.mean);
    const halves = rows.map((row) => row.numbers[key]?.half).filter(finite);
    const digits = digitsFor([...values, ...halves], key), known = values.filter(finite);
    const best = rows.length > 1 && better && known.length ? (better > 0 ? Math.max : Math.min)(...known) : null;
    const value = (row) => row.numbers[key]?.mean ?? null;
    const half = (row) => (row.numbers[key]?.half > 0 ? format(row.numbers[key].half, digits) : null);
    const cell = (row) => el("td", { class: value(row) !== null && value(row) === best ? "best" : null }, ...withHalf(format(value(row), digits), half(row)));
    return { value, cell };
  });
  const model = { head: "Model", text: true, value: (row) => row.label, cell: (row) => el("th", { scope: "row", class: "text" }, label(comparison, row.index)) };
  const of = (row) => (row.tried > row.runs.length ? `${row.runs.length} of ${row.tried}` : String(row.runs.length));
  const seeds = { head: "Seeds", value: (row) => row.runs.length, cell: (row) => el("td", {}, of(row)) };
  return table([model, seeds, ...numbers], rows, "Models", 2 + comparison.leading);
}

/** The runs, each with its pictures; a click on a row opens the run. */
function runTable(comparison) {
  const rows = comparison.runs.map((id) => ({ ...DATA.runs[id], runs: [id], open: () => openRun(id) }));
  const kinds = [...new Set(rows.flatMap((row) => row.pictures.map((picture) => picture.kind)))].slice(0, 3);
  const pictures = kinds.map((kind) => ({ head: capital(kind), text: true, cell: (row) => {
    const picture = row.pictures.find((other) => other.kind === kind);
    return el("td", { class: "text" }, picture ? el("img", { src: picture.source, alt: `${kind} of ${row.label}`, loading: "lazy" }) : "–");
  } }));
  const keys = comparison.columns.filter((key) => rows.some((row) => key in row.numbers));
  const numbers = numberColumns(comparison, keys, (key) => {
    const digits = digitsFor(rows.map((row) => row.numbers[key]), key);
    return { value: (row) => row.numbers[key] ?? null, cell: (row) => el("td", {}, ...numberOf(row, key, digits)) };
  });
  return table([runColumn(), ...pictures, ...numbers], rows, "Runs", 1 + kinds.length + comparison.leading);
}

function runColumn() {
  const button = (row) => el("button", { type: "button", onclick: (event) => { event.stopPropagation(); row.open(); } }, row.label);
  return { head: "Run", text: true, value: (row) => row.label, cell: (row) => el("th", { scope: "row", class: "text" }, button(row)) };
}

/** A run's number with its standard error, if it has one. */
function numberOf(run, key, digits) {
  const error = run.numbers[`${key}_error`];
  return withHalf(format(run.numbers[key], digits), finite(error) ? format(error, digits) : null);
}

/** A number's bound or reference, its unit and its meaning. */
function meaningOf(run, key) {
  const { unit, meaning } = about(key);
  const bounds = Object.entries(DATA.bounds).filter(([ending]) => finite(run.numbers[key + ending]))
    .map(([ending, words]) => `${words} ${format(run.numbers[key + ending], digitsFor([run.numbers[key + ending]]))}`);
  return [...bounds, unit, meaning].filter(Boolean).join(": ");
}

function failedTable(ids) {
  const rows = ids.map((id) => ({ ...DATA.runs[id], runs: [id], open: () => openRun(id) }));
  const text = (head, value) => ({ head, text: true, value, cell: (row) => el("td", { class: "text wrap" }, value(row)) });
  return table([runColumn(), text("Reason", (row) => row.failure), text("Command", (row) => (row.completed ? "–" : row.command))], rows, "Runs that did not complete");
}

/** A number of epochs, with three digits if it is not whole. */
const epochsOf = (epochs) => format(epochs, Number.isInteger(epochs) ? 0 : 3);

const captionOf = ({ kind, epoch, caption }) => [capital(kind), epoch === null ? "" : `, epoch ${epochsOf(epoch)}`, caption && `: ${caption}`].join("");

function openRun(id) {
  hideTip();
  const run = DATA.runs[id], dialog = document.querySelector("dialog");
  const endings = ["_error", ...Object.keys(DATA.bounds)];
  const names = Object.keys(run.numbers).filter((key) => !endings.some((ending) => key.endsWith(ending)));
  const rows = names.map((key) => el("tr", {}, el("th", { scope: "row", class: "text" }, labelOf(key)),
    el("td", {}, ...numberOf(run, key, digitsFor([run.numbers[key]], key))),
    el("td", { class: "text" }, meaningOf(run, key))));
  const pictures = run.pictures.map((picture) => el("figure", {},
    el("img", { src: picture.source, alt: `${picture.kind} of ${run.label}` }), el("figcaption", {}, captionOf(picture))));
  const facts = [["Command", el("code", {}, run.command)], ["Folder", el("code", {}, run.folder)],
    run.checkpoint ? ["Checkpoint tested", el("code", {}, run.checkpoint)] : null].filter(Boolean);
  const trained = run.steps ? `${epochsOf(run.epochs)} epochs, ${format(run.steps, 0)} optimizer steps. ` : "";
  dialog.replaceChildren(
    el("button", { class: "close", type: "button", onclick: () => dialog.close() }, "Close"),
    el("h2", { id: "run" }, run.label), el("p", { class: "soft" }, run.completed ? `${run.elbo_kind}. ${trained}${run.provenance}` : run.provenance),
    ...(run.failure === null ? [] : [el("p", { class: "result" }, `Not completed: ${run.failure}`)]),
    ...(run.verdict ? [el("p", {}, `${run.verdict}.`)] : []),
    el("div", { class: "pictures" }, ...pictures, ...media(run)),
    ...(rows.length ? [el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers" },
      el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "text" }, "Test number"), el("th", { scope: "col" }, "Value"), el("th", { scope: "col", class: "text" }, "Unit and meaning"))), el("tbody", {}, ...rows)))] : []),
    ...Object.entries(run.per_dimension).map(([name, values]) => bars(name, values)),
    ...facts.flatMap(([name, node]) => [el("h3", {}, name), node]));
  dialog.setAttribute("aria-labelledby", "run");
  dialog.showModal();
  dialog.scrollTop = 0;
}

/** Bars of a number that each latent dimension has, the largest first. */
function bars(name, values) {
  const sorted = values.map((value, i) => [value ?? 0, i]).sort((a, b) => b[0] - a[0]), largest = sorted[0][0] || 1;
  const text = `${labelOf(name)}: ${about(name).meaning || about(name).unit}, sorted; the largest is ${format(sorted[0][0], 3)}`;
  const marks = sorted.map(([value, i]) => el("i", { style: `height: ${Math.max(1, (100 * value) / largest)}%`, title: `dimension ${i}: ${format(value, 3)}` }));
  return el("figure", {}, el("h3", {}, labelOf(name)), el("div", { class: "bars", role: "img", "aria-label": text }, ...marks), el("figcaption", {}, text));
}

/** Pictures, texts and sounds of a run of each model, large and side by side. */
function examples(comparison) {
  const has = (...kinds) => (id) => kinds.some((kind) => DATA.runs[id][kind].length);
  const shown = comparison.variants.map(({ runs }, i) => [i, runs.find(has("texts", "sounds")) ?? runs.find(has("pictures"))])
    .filter(([, id]) => id !== undefined).map(([i, id]) => [i, DATA.runs[id]]);
  const figure = (run, kind) => {
    const picture = run.pictures.find((other) => other.kind === kind);
    return picture ? el("figure", {}, el("img", { src: picture.source, alt: `${kind} of ${run.label}` }), el("figcaption", {}, captionOf(picture))) : null;
  };
  const cards = shown.map(([i, run]) => el("article", pointing([DATA.runs.indexOf(run)]),
    el("h4", {}, swatch(comparison, i), run.label), figure(run, "samples"), figure(run, "reconstructions"), ...media(run)));
  return cards.length ? [el("h3", {}, "Samples and reconstructions"), el("div", { class: "examples" }, ...cards)] : [];
}

/** Texts and sounds that a run generated. */
const media = (run) => [
  run.texts.length ? el("figure", {}, el("ul", {}, ...run.texts.map((text) => el("li", {}, text))), el("figcaption", {}, "Texts that task=sample wrote, for z ~ p(z)")) : null,
  ...run.sounds.map((source) => el("audio", { controls: "", src: source, "aria-label": `Sound generated by ${run.label}` })),
];

const CAPTIONS = {
  "rate-distortion": "Test set. Each dashed line joins points of equal ELBO, written beside it; the lower left is better. Thin lines join a model's seeds with their mean.",
  "curves-elbo": "Point at a line for its values. The first epochs may lie below the frame.",
  "curves-kl": "Point at a line for its values. The first epochs may lie above the frame. A KL near 0 is a posterior collapse.",
  settings: "Each line is a run. Drag along an axis to select runs: all others are dimmed in every chart and table. Click on a selection to clear it.",
  metrics: "Open marks are means over seeds, lines are 95 % confidence intervals (Student's t), ticks are the seeds. ↑: larger is better; ↓: smaller is better.",
};

function comparisonSection(comparison, index) {
  comparison.rows = Object.fromEntries(Object.entries(comparison.rows).map(([name, columns]) => [name, rowsOf(columns)]));
  const intervals = `Mean over seeds ± half the width of the 95 % confidence interval (Student's t); one seed has no interval. The best value is bold. “At best” is the score of perfect codes under the same protocol; “training ${comparison.noun}s” is the score of as many training ${comparison.noun}s in place of generated ones. A number that only one model has is shown with its runs.`;
  const errors = "The number after ± is the standard error from the evaluation. Click on a row to open its run.";
  const drawn = comparison.charts.map((one) => [one.name, chart(comparison, one, CAPTIONS[one.name])]);
  return el("section", {}, el("h2", {}, comparison.elbo_kind), el("p", { class: "result" }, `${comparison.headline}.`),
    ...comparison.verdicts.map((verdict, i) => el("p", { class: verdict.collapsed ? "warning" : null, id: i ? null : `collapse${index}` }, `${verdict.text}.`)),
    el("h3", {}, "Models"), el("p", { class: "soft" }, intervals), variantTable(comparison),
    drawn.length ? el("h3", {}, "Charts") : null, drawn.length ? legend(comparison) : null,
    el("div", { class: "charts" }, ...drawn.filter(([name]) => name !== "metrics").map(([, node]) => node)), ...drawn.filter(([name]) => name === "metrics").map(([, node]) => node),
    ...examples(comparison),
    el("h3", {}, "Runs"), el("p", { class: "soft" }, errors), runTable(comparison));
}

function main() {
  document.title = DATA.title;
  const many = DATA.comparisons.length > 1;
  const left = DATA.left_out ? [el("p", { class: "soft" }, `${DATA.left_out} pictures do not fit into this page or cannot be read; they are in the runs' folders.`)] : [];
  const failed = DATA.incomplete.length;
  const count = `${DATA.runs.length} run${DATA.runs.length > 1 ? "s" : ""}${failed ? `, ${failed} not completed` : ""}`;
  document.querySelector("main").append(
    el("header", {}, el("h1", {}, DATA.title), el("p", { class: "soft" }, [count, DATA.date, ...DATA.versions].filter(Boolean).join(" · ")),
      ...(many ? [el("p", {}, `ELBOs on different data or with different measures cannot be compared: ${DATA.comparisons.length} separate comparisons follow.`)] : []), ...left),
    ...DATA.comparisons.map(comparisonSection),
    ...(failed ? [el("section", {}, el("h2", {}, "Not completed"), DATA.remedy ? el("p", {}, DATA.remedy) : null, failedTable(DATA.incomplete))] : []));
  const dialog = document.querySelector("dialog");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  const redraw = () => layouts.forEach((lay) => lay());
  redraw();
  addEventListener("resize", redraw);
}

main();
