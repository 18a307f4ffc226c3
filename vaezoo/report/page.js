// The page around the charts: heading, tables and the details of a run.

const DATA = JSON.parse(document.getElementById("data").textContent);
const layouts = []; // functions that adapt the page to its width
const about = (key) => DATA.quantities[key];
const capital = (text) => text[0].toUpperCase() + text.slice(1).replaceAll("_", " ");
/** Head of a number's column: its label, capitalised unless it is the formula log p(...). */
const labelOf = (key) => (about(key).label.startsWith("log p(") ? about(key).label : capital(about(key).label));

/**
 * A table that is sorted by a click on a head. A column has head, unit, value(row) to sort by and cell(row). As many
 * columns as fit are shown, all of them after a click. A row has the indices of its runs.
 */
function table(columns, rows, caption) {
  const body = el("tbody");
  const lines = new Map(rows.map((row) => [row, el("tr", { class: row.open ? "open" : null, onclick: row.open, "data-runs": row.runs.join(" ") },
    ...columns.map((column) => column.cell(row)))]));
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
  const all = el("button", { type: "button", "aria-pressed": false, onclick: () => { all.setAttribute("aria-pressed", box.classList.toggle("all")); fit(); } },
    `All ${columns.filter((column) => column.value && !column.text).length} columns of numbers`);
  function fit() {
    if (box.classList.contains("all")) return;
    const cells = columns.map((_, i) => [heads[i], ...[...lines.values()].map((line) => line.children[i])]);
    cells.flat().forEach((cell) => cell.classList.remove("more"));
    all.hidden = box.scrollWidth <= box.clientWidth;
    for (let i = columns.length - 1; i > 2 && box.scrollWidth > box.clientWidth; i -= 1) cells[i].forEach((cell) => cell.classList.add("more"));
  }
  layouts.push(fit);
  return el("div", {}, el("div", { class: "choice" }, all), box);
}

/** A comparison's columns of numbers; `of(key, better)` gives the value and the cell of a row. */
const numberColumns = (comparison, keys, of) => keys.map((key) => ({
  head: labelOf(key), ...about(key), protocol: comparison.protocols[key], ...of(key, about(key).better),
}));

const label = (index, text) => el("span", { class: "key" }, swatch(index), text);
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
  const model = { head: "Model", text: true, value: (row) => row.label, cell: (row) => el("th", { scope: "row", class: "text" }, label(row.index, row.label)) };
  const of = (row) => (row.tried > row.runs.length ? `${row.runs.length} of ${row.tried}` : String(row.runs.length));
  const seeds = { head: "Seeds", value: (row) => row.runs.length, cell: (row) => el("td", {}, of(row)) };
  return table([model, seeds, ...numbers], rows, "Models");
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
  return table([runColumn(), ...pictures, ...numbers], rows, "Runs");
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
  return table([runColumn(), text("Reason", (row) => row.failure), text("Command", (row) => row.command)], rows, "Runs that did not complete");
}

/** A number of epochs, with three digits if it is not whole. */
const epochsOf = (epochs) => format(epochs, Number.isInteger(epochs) ? 0 : 3);

function openRun(id) {
  const run = DATA.runs[id], dialog = document.querySelector("dialog");
  const endings = ["_error", ...Object.keys(DATA.bounds)];
  const names = Object.keys(run.numbers).filter((key) => !endings.some((ending) => key.endsWith(ending)));
  const rows = names.map((key) => el("tr", {}, el("th", { scope: "row", class: "text" }, labelOf(key)),
    el("td", {}, ...numberOf(run, key, digitsFor([run.numbers[key]], key))),
    el("td", { class: "text" }, meaningOf(run, key))));
  const caption = ({ kind, epoch }) => [capital(kind), epoch === null ? "" : `, epoch ${epochsOf(epoch)}`, kind in DATA.captions ? `: ${DATA.captions[kind]}` : ""].join("");
  const pictures = run.pictures.map((picture) => el("figure", {},
    el("img", { src: picture.source, alt: `${picture.kind} of ${run.label}` }), el("figcaption", {}, caption(picture))));
  const facts = [["Command", el("code", {}, run.command)], ["Folder", el("code", {}, run.folder)],
    run.checkpoint ? ["Checkpoint tested", el("code", {}, run.checkpoint)] : null].filter(Boolean);
  const trained = run.steps ? `${epochsOf(run.epochs)} epochs, ${format(run.steps, 0)} optimizer steps. ` : "";
  dialog.replaceChildren(
    el("button", { class: "close", type: "button", onclick: () => dialog.close() }, "Close"),
    el("h2", { id: "run" }, run.label), el("p", { class: "soft" }, run.failure === null ? `${run.elbo_kind}. ${trained}${run.provenance}` : run.provenance),
    ...(run.failure === null ? [] : [el("p", { class: "result" }, `Not completed: ${run.failure}`)]),
    ...(run.verdict ? [el("p", {}, `${run.verdict}.`)] : []),
    el("div", { class: "pictures" }, ...pictures),
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
  const sorted = values.map((value, i) => [value ?? 0, i]).sort((a, b) => b[0] - a[0]);
  const largest = Math.max(...sorted.map(([value]) => value)) || 1, step = 640 / sorted.length;
  const marks = sorted.map(([value, i], k) => svg("rect", { x: k * step, width: Math.max(step - 1, 0.5), y: 90 - (80 * value) / largest,
    height: Math.max((80 * value) / largest, 0.5), fill: "var(--accent)", "data-tip": `dimension ${i}: ${format(value, 3)}` }));
  const text = `${labelOf(name)}: ${about(name).meaning || about(name).unit}, sorted; the largest is ${format(largest, 3)}`;
  return el("figure", {}, el("h3", {}, labelOf(name)), svg("svg", { viewBox: "0 0 640 92", role: "img", "aria-label": text }, ...marks), el("figcaption", {}, text));
}

/** A chart that is drawn again when its width changes; `draw(width, redraw)` gives its nodes, or null for no chart. */
function chart(title, caption, draw) {
  const figure = el("figure"), section = el("section", {}, el("h3", {}, title), figure);
  let width = 0;
  const redraw = () => {
    const focused = figure.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const nodes = draw(figure.clientWidth || 340, redraw);
    section.hidden = nodes === null;
    figure.replaceChildren(...(nodes ?? []), el("figcaption", {}, caption));
    if (focused) figure.querySelector(`[data-key="${focused}"]`)?.focus();
    fade();
  };
  layouts.push(() => { if (figure.clientWidth !== width || !width) { redraw(); width = figure.clientWidth; } });
  return section;
}

function comparisonSection(comparison) {
  const state = { axis: "epoch", hidden: new Set(), brushes: new Map() };
  const intervals = "Mean over seeds ± half the width of the 95 % confidence interval (Student's t); one seed has no interval. The best value is bold. “At best” is the score of perfect codes under the same protocol; “training images” is the score of as many training images in place of generated ones. A number that only one model has is shown with its runs.";
  const errors = "The number after ± is the standard error from the evaluation. Click on a row to open its run.";
  return el("section", {}, el("h2", {}, comparison.elbo_kind), el("p", { class: "result" }, `${comparison.headline}.`), ...comparison.verdicts.map((verdict) => el("p", {}, `${verdict}.`)),
    el("h3", {}, "Models"), el("p", { class: "soft" }, intervals), variantTable(comparison),
    el("div", { class: "charts" },
      chart("Rate and distortion", "Test set. Each dashed line joins points of equal ELBO, written beside it; the lower left is better. Thin lines join a model's seeds with their mean. Point at a mark for its name and numbers.", (width) => ratePlane(comparison, width)),
      chart("ELBO over training", "Thick: validation; thin: training. The first epochs may lie below the frame.", (width, redraw) => curves(comparison, width, state, redraw))),
    chart("Varied settings", "Each line is a run. Point at a line to highlight it. Drag along an axis to select runs: all others are dimmed in every chart and table. Click on a selection to clear it.", (width) => parallel(comparison, width, state)),
    el("h3", {}, "Runs"), el("p", { class: "soft" }, errors), runTable(comparison));
}

function showTips() {
  const tip = document.getElementById("tip");
  const show = (event) => {
    const target = event.target.closest?.("[data-tip]");
    tip.hidden = !target;
    if (!target) return;
    tip.textContent = target.dataset.tip;
    (target.closest("dialog") ?? document.body).append(tip); // an open dialog covers everything outside it
    const box = target.getBoundingClientRect();
    const [x, y] = event.clientX === undefined ? [box.x + box.width / 2, box.y] : [event.clientX, event.clientY];
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("focusin", show);
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
    ...(failed ? [el("section", {}, el("h2", {}, "Not completed"), failedTable(DATA.incomplete))] : []));
  const dialog = document.querySelector("dialog");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  const redraw = () => layouts.forEach((lay) => lay());
  redraw();
  addEventListener("resize", redraw);
  showTips();
}

main();
